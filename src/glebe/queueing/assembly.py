"""All controllers of the queue for one cluster."""

from __future__ import annotations

from dataclasses import replace

from glebe.kube import resources as r
from glebe.kube.client import Client
from glebe.kube.clock import Env
from glebe.kube.controller import Controller
from glebe.kube.errors import ApiError
from glebe.kube.informer import Informers
from glebe.kube.objects import Object, key_of
from glebe.kube.resources import Resource
from glebe.queueing.admissionchecks import activity, approvals, provisioning
from glebe.queueing.configuration import DEFAULT, Configuration
from glebe.queueing.jobs import integrations, jobs, ungate
from glebe.queueing.jobs.dryrun import hypothetical
from glebe.queueing.jobs.kindhost import KindHost
from glebe.queueing.life import checkpoints, grace, lifecycle, recovery
from glebe.queueing.picture.learning import Learning
from glebe.queueing.picture.snapshot import SnapshotBuilder
from glebe.queueing.picture.world import CLASSES
from glebe.queueing.pods import controller as pods
from glebe.queueing.round import cycle
from glebe.queueing.round.notices import Notices
from glebe.queueing.round.planner import Arrays, InlinePlanner, Planner
from glebe.queueing.round.publish import ForecastPublisher
from glebe.queueing.telling import queuestatus
from glebe.queueing.tenants.opened import Opened
from glebe.scheduling import decide
from glebe.scheduling.model import Decision, Outcome


def controllers(
    client: Client,
    informers: Informers,
    env: Env,
    planner: Planner | None = None,
    configuration: Configuration = DEFAULT,
) -> list[Controller | KindHost]:
    """Every controller of the queue; run each until cancelled, next to ``informers.run()``."""
    return Queueing(client, informers, env, planner, configuration).controllers


class Queueing:
    """The queue of one cluster: its controllers, and the picture of the world that they share."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        env: Env,
        planner: Planner | None = None,
        configuration: Configuration = DEFAULT,
    ) -> None:
        planner = planner or InlinePlanner()
        self.configuration = configuration
        self.opened = Opened(client, informers)
        self.builder = SnapshotBuilder(client.cluster, configuration, self.opened.serves)
        self.builder.attach(informers)
        self.notices = Notices(client, env)
        self.publisher = ForecastPublisher(client, env, planner, self.builder, self.notices)
        self.learning = self.publisher.learning = Learning(client.cluster, env)
        informers.get(r.WORKLOADS).add_handler(self.learning.change)
        self.cycle = cycle.AdmissionCycle(client, env, planner, self.builder, self.notices, self.publisher.poke)
        self._env = env
        self.kinds = integrations.JobKinds(copied_labels=configuration.integrations.label_keys_to_copy)
        self.kind_host = KindHost(client, informers, env, self.notices, self.kinds, self._controllers_of)
        self._wiring = client, informers, env
        own: list[Controller] = [
            cycle.build(self.cycle, informers, env, client.cluster),
            ungate.build(client, informers, env, self.kinds),
            lifecycle.build(client, informers, env, self.notices, configuration, self.kinds),
            recovery.build(client, informers, env),
            activity.build(client, informers, env),
            approvals.build(client, informers, env, self.notices),
            provisioning.build(client, informers, env, self.notices),
            checkpoints.build(client, informers, env, self.notices, configuration, self.kinds),
            *queuestatus.build(client, informers, env, configuration),
            self.publisher.controller,
            self.notices.controller,
        ]
        self.opened.guard(own)
        self.controllers: list[Controller | KindHost] = [self.kind_host, *own]
        self._verdicts: dict[str, Decision | None] = {}
        self._verdicts_at = -1
        self._arrays = Arrays()

    def _controllers_of(self, kind: integrations.JobKind) -> list[Controller]:
        """The controllers of one kind of job, made anew."""
        client, informers, env = self._wiring

        def left(workload: Object, job: Object, now: float) -> float:
            return grace.left(workload, job, self.configuration, now)

        if kind.suspend:
            made = [jobs.build(kind, client, informers, env, self.notices, self.kinds, left)]
        else:
            made = pods.build(kind, client, informers, env, self.notices, self.kinds, left)
        self.opened.guard(made)
        return made

    def never_starts(self, cluster: str, job: Object) -> Decision | None:
        """For :class:`~glebe.queueing.gatekeeping.admission.QueueAdmission`: the verdict when ``job`` could not start
        even alone.

        Answers are kept by shape of the job until fleet or quotas change.
        """

        def find(resource: Resource, name: str, namespace: str = "") -> Object | None:
            return {} if resource in CLASSES else None  # checked elsewhere; priority cannot help one that is alone

        try:
            workload = hypothetical(job, self._env.clock.now(), find)
        except ApiError:
            return None
        if self.builder.fleet_version != self._verdicts_at:
            self._verdicts.clear()
            self._verdicts_at = self.builder.fleet_version
        entry = self.builder.entry(key_of(workload, cluster), workload)
        if entry.pending is None:
            barred = entry.barred  # a queue that is stopped makes wait, which is not the same
            return barred if barred is not None and barred.outcome is Outcome.NEVER else None
        shape = repr((entry.pending.queue, entry.pending.pod_sets))
        if shape not in self._verdicts:
            alone = replace(self.builder.snapshot(), admitted=(), pending=(entry.pending,))
            decision = decide(alone, self._env.clock.now(), fleet=self._arrays.of(alone))[0]
            self._verdicts[shape] = decision if decision.outcome is Outcome.NEVER else None
        return self._verdicts[shape]
