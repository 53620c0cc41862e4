"""Django's settings; the key guards nothing."""

SECRET_KEY = "the-lab-has-no-secrets"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "teaching_panel.urls"
INSTALLED_APPS: list = []
USE_TZ = True
TIME_ZONE = "UTC"
