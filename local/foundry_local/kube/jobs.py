"""The Job controller: completions, parallelism, retries, deadline, and removal some time after the end."""

from datetime import UTC, datetime

from foundry_local.kube.deletion import DeleteOptions
from foundry_local.kube.owners import Controller, is_ready, phase
from foundry_local.kube.resources import JOBS, PODS
from foundry_local.kube.types import (
    Obj,
    condition,
    dig,
    is_deleting,
    name_of,
    namespace_of,
    now_text,
    parse_time,
    set_condition,
)

_LIMIT = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
_DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
_DONE = ("CompletionsReached", "Reached expected number of succeeded pods")


class Jobs(Controller):
    resource = JOBS

    def reconcile_one(self, obj: Obj) -> None:
        if end := _end_condition(obj):
            self._expire(obj, end)
        elif not obj["spec"].get("suspend"):
            self._run(obj)

    def _run(self, job: Obj) -> None:
        pods = self.owned(PODS, job)
        succeeded = sum(phase(pod) == "Succeeded" for pod in pods)
        active = [pod for pod in pods if phase(pod) in ("Pending", "Running") and not is_deleting(pod)]
        wanted = int(job["spec"].get("completions", 1))
        failure = self._failure(job, pods)
        if failure is None:
            for _ in range(min(int(job["spec"].get("parallelism", 1)), wanted - succeeded) - len(active)):
                self.create_pod(job, job["spec"]["template"])
        else:
            for pod in active:
                self.deleter.delete(PODS, namespace_of(pod), name_of(pod), DeleteOptions(grace_s=0))
        self._write_status(job, failure, done=succeeded >= wanted)

    def _failure(self, job: Obj, pods: list[Obj]) -> tuple[str, str] | None:
        failures = sum(phase(pod) == "Failed" for pod in pods) + sum(_restarts(pod) for pod in pods)
        if failures > int(job["spec"].get("backoffLimit", 6)):
            return _LIMIT
        deadline_s, started = job["spec"].get("activeDeadlineSeconds"), dig(job, "status", "startTime")
        if deadline_s and started and _age_s(started) > float(deadline_s) / self.speed:
            return _DEADLINE
        return None

    def _write_status(self, job: Obj, failure: tuple[str, str] | None, *, done: bool) -> None:
        pods = self.owned(PODS, job)
        running = [pod for pod in pods if phase(pod) in ("Pending", "Running")]

        def edit(target: Obj) -> None:
            status = target.setdefault("status", {})
            status.setdefault("startTime", now_text())
            status["active"], status["ready"] = len(running), sum(is_ready(pod) for pod in running)
            for key, wanted in (("succeeded", "Succeeded"), ("failed", "Failed")):
                status[key] = sum(phase(pod) == wanted for pod in pods)
            if done:
                status["completionTime"] = now_text()
                set_condition(target, "SuccessCriteriaMet", "True", *_DONE)
                set_condition(target, "Complete", "True", *_DONE)
            elif failure:
                set_condition(target, "FailureTarget", "True", *failure)
                set_condition(target, "Failed", "True", *failure)

        self.edit(job, edit)
        if done:
            self.event(job, "Completed", "Job completed")
        elif failure:
            self.event(job, failure[0], failure[1], warning=True)

    def _expire(self, job: Obj, end: Obj) -> None:
        life_s = job["spec"].get("ttlSecondsAfterFinished")
        if life_s is not None and _age_s(end["lastTransitionTime"]) > float(life_s) / self.speed:
            self.deleter.delete(JOBS, namespace_of(job), name_of(job))


def _end_condition(job: Obj) -> Obj | None:
    found = (condition(job, kind) for kind in ("Complete", "Failed"))
    return next((item for item in found if item and item["status"] == "True"), None)


def _restarts(pod: Obj) -> int:
    return sum(item.get("restartCount", 0) for item in dig(pod, "status", "containerStatuses", default=[]))


def _age_s(timestamp: str) -> float:
    return (datetime.now(UTC) - parse_time(timestamp)).total_seconds()
