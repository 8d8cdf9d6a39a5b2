"""A distributed dispatcher for AWS CodePipeline jobs of partner and custom actions.

Provider modules import `dispatcher.sdk`; Celery finds the app with `-A dispatcher`. Importing this
package loads neither: a provider's tests need no broker."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.celery import app as app


def __getattr__(name: str) -> Any:
    if name == "app":
        from dispatcher.celery import app  # noqa: PLC0415 - only Celery needs it

        return app
    raise AttributeError(name)
