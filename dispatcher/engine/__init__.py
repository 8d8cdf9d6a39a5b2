"""Decides and orders. Knows no Redis, boto3, Celery or environment; its clock is passed in."""
