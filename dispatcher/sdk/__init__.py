"""What a provider module imports: the action mark, its Job, artifacts, outcomes, failures, keys.

Knows the limits that CodePipeline's API reference gives for each value; knows no broker, store or
AWS client, and reads no environment.
"""

from dispatcher.archives import Format
from dispatcher.sdk.actions import ActionType, Key, OnCrash, Owner, Secret
from dispatcher.sdk.artifacts import Artifacts, InputArtifact, MissingArtifact, OutputArtifact
from dispatcher.sdk.failures import (
    ConfigurationError,
    Failure,
    FailureType,
    JobFailed,
    PermissionDenied,
    Retry,
    RevisionOutOfSync,
    RevisionUnavailable,
    SystemUnavailable,
)
from dispatcher.sdk.jobs import Control, Job, Pipeline
from dispatcher.sdk.mark import ActionSpec, action, spec_of
from dispatcher.sdk.outcomes import Continue, Outcome, Revision, Succeeded

__all__ = [
    "ActionSpec",
    "ActionType",
    "Artifacts",
    "ConfigurationError",
    "Continue",
    "Control",
    "Failure",
    "FailureType",
    "Format",
    "InputArtifact",
    "Job",
    "JobFailed",
    "Key",
    "MissingArtifact",
    "OnCrash",
    "Outcome",
    "OutputArtifact",
    "Owner",
    "PermissionDenied",
    "Pipeline",
    "Retry",
    "Revision",
    "RevisionOutOfSync",
    "RevisionUnavailable",
    "Secret",
    "Succeeded",
    "SystemUnavailable",
    "action",
    "spec_of",
]
