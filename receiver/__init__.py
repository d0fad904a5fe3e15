"""shipit: a git push-to-deploy receiver. Everything that can be shipped becomes a numbered release."""

__version__ = "0.1.0"
