"""The configuration file: Kueue's own is read as it is, and what cannot be meant is refused by name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from glebe.queueing.configuration import DEFAULT, ConfigurationError, parsed, read

KUEUE = """
apiVersion: config.kueue.x-k8s.io/v1beta2
kind: Configuration
health:
  healthProbeBindAddress: :8081
metrics:
  bindAddress: :8443
leaderElection:
  leaderElect: true
controller:
  groupKindConcurrency:
    Job.batch: 5
clientConnection:
  qps: 50
waitForPodsReady:
  timeout: 5m
  recoveryTimeout: 3m
  blockAdmission: true
  requeuingStrategy:
    timestamp: Creation
    backoffLimitCount: 5
    backoffBaseSeconds: 10
manageJobsWithoutQueueName: true
integrations:
  frameworks: ["batch/job", "pod"]
fairSharing:
  preemptionStrategies: [LessThanInitialShare]
admissionFairSharing:
  usageHalfLifeTime: 168h
  usageSamplingInterval: 5m
  resourceWeights:
    cpu: 2.0
resources:
  excludeResourcePrefixes: [example.org]
  transformations:
    - input: nvidia.com/mig-4g.5gb
      strategy: Replace
      outputs:
        example.com/accelerator-memory: 5Gi
        example.com/credits: "4"
featureGates:
  PriorityBoost: true
glebe:
  checkpointGrace: {default: 30s, maximum: 5m}
"""


def test_a_file_for_kueue_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(KUEUE)
    config = read(path)
    ready = config.wait_for_pods_ready
    assert ready is not None
    assert (ready.timeout_seconds, ready.recovery_seconds, ready.block_admission) == (300, 180, True)
    assert ready.requeuing_strategy.backoff_limit_count == 5
    assert config.gate("PriorityBoost", False)
    assert not config.gate("SomethingElse", False)
    amounts = config.resources.transformations[0].amounts()
    assert amounts["example.com/accelerator-memory"] == Fraction(5 << 30)
    assert config.admission_fair_sharing is not None
    assert config.admission_fair_sharing.resource_weights == {"cpu": 2.0}


def test_without_a_file_kueues_defaults_hold() -> None:
    ready = DEFAULT.wait_for_pods_ready
    assert ready is not None
    assert (ready.timeout_seconds, ready.recovery_seconds, ready.block_admission) == (1800, 1800, False)
    assert DEFAULT.fair_sharing is None
    assert parsed({}) == DEFAULT


def test_no_recovery_timeout_is_written_as_zero() -> None:
    ready = parsed({"waitForPodsReady": {"timeout": "5m", "recoveryTimeout": "0s"}}).wait_for_pods_ready
    assert ready is not None
    assert ready.recovery_seconds is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"waitForPodReady": {}}, "waitForPodReady"),
        ({"waitForPodsReady": {"timeout": "soon"}}, "waitForPodsReady.timeout"),
        ({"waitForPodsReady": {"timeout": "-5m"}}, "must not be negative"),
        ({"waitForPodsReady": {"requeuingStrategy": {"backoffLimitCount": -1}}}, "backoff_limit_count"),
        ({"fairSharing": {"preemptionStrategies": ["LessThanInitialShare"] * 2}}, "preemptionStrategies"),
        ({"admissionFairSharing": {"resourceWeights": {"cpu": -1.0}}}, "resourceWeights"),
        ({"resources": {"transformations": [{"input": "a"}, {"input": "a"}]}}, "a is the input twice"),
        ({"resources": {"transformations": [{"input": "a", "outputs": {"b": "x"}}]}}, r"transformations\[a\]"),
        ({"glebe": {"checkpointGrace": {"maximum": "-1s"}}}, "checkpointGrace.maximum"),
        ([], "Expected `object`"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(content: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parsed(content)
