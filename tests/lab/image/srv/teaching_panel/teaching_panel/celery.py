"""The celery application: Redis as its broker, one periodic task."""

from celery import Celery

app = Celery("teaching_panel", broker="redis://localhost:6379/0", include=["teaching_panel.tasks"])
app.conf.beat_schedule = {
    "heartbeat": {
        "task": "teaching_panel.tasks.touch",
        "schedule": 60.0,
        "args": ["/var/lib/teaching_panel/heartbeat"],
    },
}
