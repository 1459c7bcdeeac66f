"""What is tried with each profile, in this order; a step builds on what the steps before left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from tests.compose_file import services
from tests.containers.composed import Project
from tests.containers.load import Caller, Load

UPRIGHT_S = 3.0
"""Of load before and after what is done to a service."""
CLIENTS = 3
WORKERS, REPLICAS = 3, 2
STORES_AND_OURS = ("redis", "s3", "postgres", "worker", "api")


@dataclass
class Trial:
    """A project and those who use it."""

    project: Project
    use: Callable[[str], None]
    """From now on Compose starts this version of our images."""
    key: str = ""
    seen: list[str] = field(default_factory=list)

    def caller(self, person: str) -> Caller:
        ports = self.project.ports if self.project.profile != "embedded" else self.project.ports[:1]
        return Caller(ports, self.key, person)

    def load(self, name: str) -> Load:
        """People with names of their own; each has a profile already."""
        callers = [self.caller(f"{name}-{i}") for i in range(CLIENTS)]
        for caller in callers:
            caller.answer_quiz()
        return Load(callers)


def comes_up(trial: Trial) -> str:
    began_s = time.monotonic()
    trial.project.up()
    containers_s = time.monotonic() - began_s
    ready_s = trial.project.until_ready()
    return f"containers in {containers_s:.0f} s, healthy and ready {ready_s:.0f} s later"


def is_fenced_in(trial: Trial) -> str:
    """As the engine sees it: user, root, rights; and nothing secret in an environment."""
    ours = ("api", "worker", "embedded", "migrate")
    looked = 0
    for name in services(trial.project.profile):
        for container in trial.project.containers(name):
            state = trial.project.inspected(container)
            config, host = state["Config"], state["HostConfig"]
            _hold(host["ReadonlyRootfs"] is True, f"{name}: its root can be written")
            _hold(host["CapDrop"] == ["ALL"], f"{name}: {host['CapDrop']}")
            if name in ours:
                _hold(config["User"] == "10001:10001", f"{name} runs as {config['User']!r}")
            secret = [word for word in config["Env"] if re.search(r"[0-9a-f]{64}", word)]
            _hold(not secret, f"{name}: a secret in its environment")
            _hold(not re.search(r"[0-9a-f]{64}", str(config["Cmd"])), f"{name}: in its command")
            looked += 1
    return f"{looked} containers"


def takes_a_quiz(trial: Trial) -> str:
    trial.key = trial.project.new_key()
    held = trial.caller("ada").answer_quiz()
    return f"profile version {held['profile_version']}: {held['profile']['text'][:60]}"


def makes_a_picture(trial: Trial) -> str:
    caller = trial.caller("ada")
    result = caller.see_picture(caller.begin_picture(7))["result"]
    _hold(result["personalization_applied"] is True, f"no taste was applied: {result}")
    return f"adapter {result['adapter_version'][:12]}, taste applied"


def keeps_what_it_has(trial: Trial) -> str:
    """Containers go and come, volumes stay."""
    caller = trial.caller("ada")
    before = caller.jobs()
    trial.project.compose("down", "--timeout", "60")
    trial.project.up()
    ready_s = trial.project.until_ready()
    _hold(caller.jobs() == before, "jobs are gone")
    for job_id in before:
        caller.see_picture(job_id)
    return f"{len(before)} pictures are there after down and up, ready in {ready_s:.0f} s"


def restarted(service: str, how: str) -> Callable[[Trial], str]:
    """Under load: as an operator does it, or as power does."""

    def step(trial: Trial) -> str:
        load = trial.load(f"{service}-{how}")
        load.begin()
        time.sleep(UPRIGHT_S)
        if how == "restart":
            trial.project.compose("restart", service)
        else:
            for container in trial.project.containers(service):
                pid = trial.project.inspected(container)["State"]["Pid"]
                trial.project.engine.run("kill", "--signal", "KILL", container)
                _hold(pid > 0, f"{service} did not run")
            # The engine takes a kill for the operator's wish, and does not start it again.
            trial.project.up("--no-deps", "--no-recreate", service)
        ready_s = trial.project.until_ready()
        time.sleep(UPRIGHT_S)
        return f"{load.end()}, ready {ready_s:.0f} s after"

    return step


def scales(trial: Trial) -> str:
    """Each replica answers and each worker works, under load."""
    load = trial.load("scaled")
    load.begin()
    trial.project.up("--scale", f"worker={WORKERS}", "--scale", f"api={REPLICAS}")
    trial.project.until_ready()
    answered = [port for port in trial.project.ports if _until_answers(trial.project, port)]
    _hold(len(answered) == REPLICAS, f"only {answered} of {trial.project.ports} answer")
    url = f"http://127.0.0.1:{answered[0]}/metrics"
    deadline = time.monotonic() + 60
    while (seen := _workers(httpx.get(url, trust_env=False).text)) != WORKERS:
        _hold(time.monotonic() < deadline, f"{seen:.0f} workers are seen")
        time.sleep(1)
    time.sleep(2 * UPRIGHT_S)
    found = load.end()
    trial.project.up("--scale", "worker=1", "--scale", "api=1")
    trial.project.until_ready()
    return f"{found}; {REPLICAS} replicas, {WORKERS} workers, and back to one of each"


def changes_version(to: str, again: str = "") -> Callable[[Trial], str]:
    """In the order of docs/deploy.md, under load of new people: migrate, workers, API."""

    def step(trial: Trial) -> str:
        load = trial.load(f"{again}to-{to}")
        before = _schema(trial)
        load.begin()
        time.sleep(UPRIGHT_S)
        trial.use(to)
        trial.project.compose("rm", "--force", "migrate")
        trial.project.up("--no-deps", "migrate")
        (container,) = trial.project.containers("migrate")
        code = trial.project.engine.run("wait", container).strip()
        _hold(code == "0", f"migrate ended with {code}")
        for service in ("worker", "api"):
            trial.project.up("--no-deps", service)
        ready_s = trial.project.until_ready()
        time.sleep(UPRIGHT_S)
        after = _schema(trial)
        return f"schema {before} to {after}; {load.end()}, ready {ready_s:.0f} s after"

    return step


def starts_older(trial: Trial) -> str:
    """A project of the older version, with nothing in it; people answer and look."""
    trial.project.compose("down", "--volumes", "--timeout", "60")
    trial.use("before")
    trial.project.up()
    ready_s = trial.project.until_ready()
    trial.key = trial.project.new_key()
    caller = trial.caller("ada")
    caller.answer_quiz()
    caller.see_picture(caller.begin_picture(7))
    return f"schema {_schema(trial)}, a quiz and a picture, ready in {ready_s:.0f} s"


def still_has_its_people(trial: Trial) -> str:
    """Who answered before all this has the same profile and pictures."""
    caller = trial.caller("ada")
    held = caller.ask("GET", "/users/ada/preferences").json()
    _hold(held["status"] == "ready", str(held))
    for job_id in caller.jobs():
        caller.see_picture(job_id)
    caller.see_picture(caller.begin_picture(8))
    return f"{len(caller.jobs())} pictures"


def ends_cleanly(trial: Trial) -> str:
    """SIGTERM is obeyed in time: nothing had to be killed."""
    trial.project.compose("stop")
    ours = [name for name in services(trial.project.profile) if name not in ("migrate",)]
    codes = {}
    for name in ours:
        for container in trial.project.containers(name):
            codes[name] = trial.project.inspected(container)["State"]["ExitCode"]
    _hold(137 not in codes.values(), f"killed: {codes}")
    return ", ".join(f"{name} {code}" for name, code in codes.items())


EMBEDDED: list[tuple[str, Callable[[Trial], str]]] = [
    ("comes up", comes_up),
    ("is fenced in", is_fenced_in),
    ("a quiz", takes_a_quiz),
    ("a picture", makes_a_picture),
    ("restarted under load", restarted("embedded", "restart")),
    ("killed under load", restarted("embedded", "kill")),
    ("down and up", keeps_what_it_has),
    ("stops", ends_cleanly),
]
CPU: list[tuple[str, Callable[[Trial], str]]] = [
    ("comes up", comes_up),
    ("is fenced in", is_fenced_in),
    ("a quiz", takes_a_quiz),
    ("a picture", makes_a_picture),
    *((f"{name} restarted under load", restarted(name, "restart")) for name in STORES_AND_OURS),
    ("API and workers scaled", scales),
    ("down and up", keeps_what_it_has),
    ("the older version", starts_older),
    ("upgrade under load", changes_version("now")),
    ("rollback under load", changes_version("before")),
    ("upgrade again", changes_version("now", again="again-")),
    ("people are there", still_has_its_people),
    *((f"{name} killed under load", restarted(name, "kill")) for name in STORES_AND_OURS),
    ("stops", ends_cleanly),
]
STEPS = {"embedded": EMBEDDED, "cpu": CPU}


def _until_answers(project: Project, port: int) -> bool:
    deadline = time.monotonic() + 60
    while not project.answers(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def _workers(metrics: str) -> float:
    found = re.search(r'^ppd_workers\{kind="generate",state="ready"\} (\S+)', metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


def _schema(trial: Trial) -> str:
    said = trial.project.compose(
        *("exec", "-T", "--user", "postgres", "postgres", "psql", "--no-psqlrc", "-tA"),
        *("--username", "postgres", "ppd", "-c", "SELECT version_num FROM alembic_version"),
    )
    return said.strip()


def _hold(held: bool, otherwise: str) -> None:
    if not held:
        raise RuntimeError(otherwise)
