"""The queue's configuration file: Kueue's ``Configuration``, and ``glebe`` for what Kueue has no field for.

A file written for Kueue is read as it is. What concerns only Kueue's own process (webhooks, leader election, ports) is
accepted and means nothing here; an unknown field is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from glebe.kube.duration import parse_duration
from glebe.kube.quantity import parse

Duration = float | str


class ConfigurationError(ValueError):
    """The file says something that cannot be meant; the message names the field."""


class _Base(msgspec.Struct, rename="camel", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields are camelCase in the file."""


class RequeuingStrategy(_Base, frozen=True):
    """How a workload comes back whose pods were not ready in time."""

    timestamp: Literal["Eviction", "Creation"] = "Eviction"
    backoff_limit_count: int | None = None
    backoff_base_seconds: int = 60
    backoff_max_seconds: int = 3600


class WaitForPodsReady(_Base, frozen=True):
    """All pods must be ready ``timeout`` after admission, and again ``recovery_timeout`` after one was lost."""

    enable: bool = True
    timeout: Duration = "30m"
    block_admission: bool = False
    recovery_timeout: Duration | None = None
    requeuing_strategy: RequeuingStrategy = RequeuingStrategy()

    @property
    def timeout_seconds(self) -> float:
        return parse_duration(self.timeout)

    @property
    def recovery_seconds(self) -> float | None:
        """``None``: a lost pod may stay away for ever."""
        given = self.timeout if self.recovery_timeout is None else self.recovery_timeout
        return parse_duration(given) or None


class Integrations(_Base, frozen=True):
    """Kinds of jobs."""

    frameworks: tuple[str, ...] = ()
    external_frameworks: tuple[str, ...] = ()
    label_keys_to_copy: tuple[str, ...] = ()
    pod_options: dict[str, Any] | None = None


class FairSharing(_Base, frozen=True):
    """Instantaneous fair sharing is on when this is given."""

    enable: bool = True
    preemption_strategies: tuple[Literal["LessThanOrEqualToFinalShare", "LessThanInitialShare"], ...] = (
        "LessThanOrEqualToFinalShare",
        "LessThanInitialShare",
    )


class AdmissionFairSharing(_Base, frozen=True):
    """LocalQueues take turns by their decayed use."""

    usage_half_life_time: Duration = 0.0
    usage_sampling_interval: Duration = "5m"
    resource_weights: Mapping[str, float] = MappingProxyType({})


class Transformation(_Base, frozen=True):
    """Outputs per unit of ``input``, times the amount of ``multiply_by`` that the pod asks for."""

    input: str
    strategy: Literal["Retain", "Replace"] = "Retain"
    multiply_by: str = ""
    outputs: Mapping[str, int | float | str] = MappingProxyType({})

    def amounts(self) -> dict[str, Fraction]:
        return {name: Fraction(parse(str(amount))) for name, amount in self.outputs.items()}


class Resources(_Base, frozen=True):
    """What of a pod's requests is counted, and as what."""

    quota_check_strategy: Literal["BlockUndeclared", "IgnoreUndeclared"] = "BlockUndeclared"
    exclude_resource_prefixes: tuple[str, ...] = ()
    transformations: tuple[Transformation, ...] = ()
    device_class_mappings: tuple[dict[str, Any], ...] = ()


class WorkloadRetention(_Base, frozen=True):
    """After how long workloads go; ``None``: never by themselves."""

    after_finished: Duration | None = None
    after_deactivated_by_kueue: Duration | None = None

    @property
    def after_finished_seconds(self) -> float | None:
        return None if self.after_finished is None else parse_duration(self.after_finished)

    @property
    def after_deactivated_seconds(self) -> float | None:
        return None if self.after_deactivated_by_kueue is None else parse_duration(self.after_deactivated_by_kueue)


class ObjectRetentionPolicies(_Base, frozen=True):
    """What is removed by itself."""

    workloads: WorkloadRetention = WorkloadRetention()


class Checkpoint(_Base, frozen=True):
    """Time to save one's work before a preemption stops it.

    ``default`` is what a job gets that asks for nothing, ``maximum`` the most that it may ask for.
    """

    default: Duration = 0.0
    maximum: Duration = "10m"


class Own(_Base, frozen=True):
    """What Kueue has no field for."""

    checkpoint_grace: Checkpoint = Checkpoint()
    minimum_run_time: Duration = 0.0
    victims: Literal["Newest", "LeastLostWork"] = "Newest"


class Configuration(_Base, frozen=True):
    """The whole file."""

    api_version: str = "config.kueue.x-k8s.io/v1beta2"
    kind: Literal["Configuration"] = "Configuration"
    manage_jobs_without_queue_name: bool = False
    managed_jobs_namespace_selector: dict[str, Any] | None = None
    wait_for_pods_ready: WaitForPodsReady | None = WaitForPodsReady()
    integrations: Integrations = Integrations()
    fair_sharing: FairSharing | None = None
    admission_fair_sharing: AdmissionFairSharing | None = None
    resources: Resources = Resources()
    feature_gates: Mapping[str, bool] = MappingProxyType({})
    object_retention_policies: ObjectRetentionPolicies = ObjectRetentionPolicies()
    glebe: Own = Own()
    # Kueue's own process: accepted, without meaning here.
    namespace: str | None = None
    internal_cert_management: Any = None
    client_connection: Any = None
    multi_kueue: Any = None
    visibility_server: Any = None
    webhook: Any = None
    leader_election: Any = None
    metrics: Any = None
    health: Any = None
    pprof_bind_address: Any = None
    controller: Any = None
    tls: Any = None

    def gate(self, name: str, default: bool) -> bool:
        """Whether a feature gate of Kueue is on."""
        return self.feature_gates.get(name, default)


#: What holds when no file is given: Kueue's defaults.
DEFAULT = Configuration()

_LISTS = (
    ("LessThanOrEqualToFinalShare",),
    ("LessThanInitialShare",),
    ("LessThanOrEqualToFinalShare", "LessThanInitialShare"),
)


def read(path: Path) -> Configuration:
    """The configuration in a YAML file.

    :raises ConfigurationError: when it cannot be read or understood.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    return parsed(content or {}, str(path))


def parsed(content: Any, where: str = "configuration") -> Configuration:
    """The configuration that ``content`` (the parsed file) says.

    :raises ConfigurationError: naming the field that is wrong.
    """
    try:
        config = msgspec.convert(content, Configuration, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    for problem in _problems(config):
        raise ConfigurationError(f"{where}: {problem}")
    return config


def _problems(config: Configuration) -> list[str]:
    out: list[str] = []
    ready = config.wait_for_pods_ready
    if ready is not None:
        out += _not_negative("waitForPodsReady.timeout", ready.timeout)
        out += _not_negative("waitForPodsReady.recoveryTimeout", ready.recovery_timeout)
        strategy = ready.requeuing_strategy
        for name in ("backoff_limit_count", "backoff_base_seconds", "backoff_max_seconds"):
            if (getattr(strategy, name) or 0) < 0:
                out.append(f"waitForPodsReady.requeuingStrategy: {name} must not be negative")
    if config.fair_sharing is not None and config.fair_sharing.preemption_strategies not in _LISTS:
        out.append("fairSharing.preemptionStrategies: not one of the lists that Kueue knows")
    shares = config.admission_fair_sharing
    if shares is not None:
        out += _not_negative("admissionFairSharing.usageHalfLifeTime", shares.usage_half_life_time)
        out += _not_negative("admissionFairSharing.usageSamplingInterval", shares.usage_sampling_interval)
        if any(weight < 0 for weight in shares.resource_weights.values()):
            out.append("admissionFairSharing.resourceWeights must not be negative")
    resources = config.resources
    if resources.quota_check_strategy == "IgnoreUndeclared" and resources.exclude_resource_prefixes:
        out.append("resources.excludeResourcePrefixes cannot be given with quotaCheckStrategy: IgnoreUndeclared")
    inputs = [t.input for t in resources.transformations]
    out += [
        f"resources.transformations: {name} is the input twice"
        for name in sorted(set(inputs))
        if inputs.count(name) > 1
    ]
    for transformation in resources.transformations:
        try:
            transformation.amounts()
        except ValueError as error:
            out.append(f"resources.transformations[{transformation.input}].outputs: {error}")
    retention = config.object_retention_policies.workloads
    out += _not_negative("objectRetentionPolicies.workloads.afterFinished", retention.after_finished)
    gone = retention.after_deactivated_by_kueue
    out += _not_negative("objectRetentionPolicies.workloads.afterDeactivatedByKueue", gone)
    grace = config.glebe.checkpoint_grace
    out += _not_negative("glebe.checkpointGrace.default", grace.default)
    out += _not_negative("glebe.checkpointGrace.maximum", grace.maximum)
    return out + _not_negative("glebe.minimumRunTime", config.glebe.minimum_run_time)


def _not_negative(name: str, value: Duration | None) -> list[str]:
    if value is None:
        return []
    try:
        return [] if parse_duration(value) >= 0 else [f"{name} must not be negative"]
    except ValueError as error:
        return [f"{name}: {error}"]
