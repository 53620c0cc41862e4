"""The site's addresses."""

from django.urls import path

from teaching_panel import views

urlpatterns = [
    path("", views.index),
    path("grow", views.grow),
    path("hang", views.hang),
    path("say", views.say),
]
