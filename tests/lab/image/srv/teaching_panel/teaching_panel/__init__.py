"""The lab's site: a small Django project under gunicorn and celery."""

from teaching_panel.celery import app as celery_app

__all__ = ["celery_app"]
