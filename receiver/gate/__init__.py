"""The ssh side of shipit: what a client typed becomes a request, is allowed or denied, and served."""
