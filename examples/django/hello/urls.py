"""One page: which release made it, and how many sessions the migrated database holds."""

import os

from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponse
from django.urls import path


def hello(request: HttpRequest) -> HttpResponse:
    release = os.environ.get("SHIPIT_RELEASE", "not released")
    return HttpResponse(f"Hello from shipit ({release}), {Session.objects.count()} sessions\n")


urlpatterns = [path("", hello)]
