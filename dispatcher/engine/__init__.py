"""Decides and orders. Knows no Redis, no boto3, no Celery, no environment; its clock is passed in."""
