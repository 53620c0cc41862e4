# Sets up the runbook's server: both versions of the configuration enabled and running side by side, and one
# celery worker that somebody started by hand. Run by root in the guest.
set -eu
units='teaching_panel.service celery.service celery_worker.service celery-beat.service celery_beat.service
    celery-combined.service'
systemctl enable --quiet $units
systemctl start $units

cd /srv/teaching_panel
export DJANGO_SETTINGS_MODULE=teaching_panel.settings
runuser -u www-data -- setsid -f celery -A teaching_panel worker --concurrency 1 --loglevel INFO \
    </dev/null >/var/lib/teaching_panel/stray.log 2>&1

ready() {
    [ "$(pgrep -c -u www-data -f 'gunicorn --workers 3')" -eq 4 ] || return 1
    [ "$(journalctl -u 'celery*' -o cat | grep -c 'celery@.* ready')" -ge 3 ] || return 1
    [ "$(journalctl -u 'celery*beat.service' -o cat | grep -c 'beat: Starting')" -ge 2 ] || return 1
    grep -q 'celery@.* ready' /var/lib/teaching_panel/stray.log || return 1
    curl -sf -o /dev/null http://127.0.0.1/
}
until ready; do sleep 0.5; done
