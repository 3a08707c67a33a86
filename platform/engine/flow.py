"""Collecting and learning at the same time: env runners stream to learners, the train ratio holds both together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from oneiros.platform.engine.config import WorldModelConfig
from oneiros.platform.engine.env_runner import Announcement
from oneiros.platform.engine.learner import LearnResult
from oneiros.platform.engine.learner_calls import Answer, LearnerCalls, LearnerDied
from oneiros.platform.engine.published import Published
from oneiros.platform.training.episodes import EpisodeLog
from oneiros.platform.training.ratio import TrainRatio
from ray.rllib.env.env_runner_group import EnvRunnerGroup

log = logging.getLogger(__name__)

ANNOUNCE = "announce"
SLICE_SECONDS = 0.2
"""How long one call to the learners should take: short enough that new weights and checkpoints do not wait."""
POLL_SECONDS = 0.005
"""How long the driver waits for news before it looks at the other side."""
LONGEST_LISTENED = 1.0
"""What one round of listening counts for at most: when this process was stopped meanwhile, nobody else was silent."""
FASTEST_GROWTH = 2.0
"""How many times the speed known so far an answer may show: what took no time at all says nothing about what will."""
CALLS_IN_FLIGHT = 2
"""One call runs while the next one waits at the learner, so that it never waits for the driver."""


class EnvRunnersBroken(RuntimeError):
    """No env runner can collect any more."""


class Flow:
    """The driver's part of a run with env runners; it moves references, never experience or weights.

    Runners are asked for chunks as long as the learners keep up; learners are given chunks at once and updates as the
    train ratio allows. So learning waits when data is short, and collection waits when more than ``bound`` updates are
    outstanding.
    """

    def __init__(self, config: WorldModelConfig, runners: EnvRunnerGroup, learners: LearnerCalls) -> None:
        self.config = config
        self.runners = runners
        self.learners = learners
        self.ratio = TrainRatio(config.train_ratio, config.rows_per_update())
        self.episodes = EpisodeLog()
        self.env_steps = 0
        self.updates = 0
        self.faults: dict[str, int] = {}
        self.last_metrics: dict[str, float] = {}
        self._fragment = config.fragment_length()
        self._ready = False
        self._arrived: list[list[Any]] = [[] for _ in range(learners.learners)]
        self._updates_in_flight = 0
        self._chunks_in_flight = 0
        self.published: Published | None = None
        """The weights that runners are given now."""
        self.server: Any = None
        """Who acts with them for the runners; None: they do."""
        self._publications = 0
        self._published_at = 0.0
        self._per_second = 1.0
        self._failures_in_a_row = 0
        self._listened = 0.0
        self.hurried = False
        """Whether everything shall end soon."""
        self._heard: dict[int, float] = {}
        self._statistics: dict[str, float] = {}
        self._policy_ages: list[int] = []

    @property
    def backlog(self) -> int:
        """Updates that are due and not done."""
        return self.ratio.due(self.env_steps) + self._updates_in_flight

    @property
    def bound(self) -> int:
        """Outstanding updates beyond which no more experience is asked for."""
        envs = self.runners.num_remote_env_runners() * self.config.num_envs_per_env_runner
        per_round = self._fragment * envs * self.ratio.ratio / self.ratio.rows_per_update
        return max(2 * self._slice(), int(2 * per_round), 2)

    def pump(self, seconds: float) -> None:
        """Move everything that can be moved, for about ``seconds``.

        Raises what a learner raised, such as ``TrainingDiverged``; the run can be saved all the same.
        """
        now = time.perf_counter()
        until = now + seconds
        while now < until and not self.hurried:
            begun = now
            chunks = self._fetch(POLL_SECONDS)
            self._take_chunks(chunks)
            answers = self._answers(self.learners.finished)
            self._take_results(answers)
            self._feed_learners()
            now = time.perf_counter()
            if not chunks and not answers and now - begun < POLL_SECONDS:
                # With no runner asked for anything, fetching returns at once; a loop that spins would keep Python's
                # lock from a learner that lives in this process.
                time.sleep(POLL_SECONDS - (now - begun))
                now = time.perf_counter()
            self._listened += min(now - begun, LONGEST_LISTENED)

    def hurry(self) -> None:
        """Have ``pump`` end, whatever time it was given."""
        self.hurried = True

    def drain(self) -> None:
        """Hand over the chunks that have arrived, and wait for the learners' calls in flight."""
        while any(self._arrived) or self.learners.in_flight:
            self._take_results(self._answers(self.learners.wait))
            if any(self._arrived):
                self._submit(0)

    def publish(self) -> Published:
        """Put the newest weights of the learners into the object store, for runners and for whoever asks."""
        self.drain()
        self._submit(0, weights=True)
        self.drain()
        assert self.published is not None
        return self.published

    def silent(self, seconds: float) -> list[int]:
        """Return the runners that were asked for chunks and have said nothing for ``seconds``; they count as heard.

        Only time in which somebody listened counts: not evaluations, checkpoints, or the start of another runner.
        """
        now = self._listened
        # One that is being started again begins anew: what it did not say meanwhile is not held against it.
        self._heard = {runner: self._heard.get(runner, now) for runner in self.runners.healthy_env_runner_ids()}
        silent = [runner for runner, heard in self._heard.items() if now - heard > seconds]
        self._heard.update(dict.fromkeys(silent, now))
        return silent

    def metrics(self) -> dict[str, float]:
        """What is known since the last call, and counters since the beginning."""
        ages, self._policy_ages = self._policy_ages, []
        metrics: dict[str, float] = {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "train_ratio": self.ratio.actual(self.env_steps),
            "updates_due": self.backlog,
            **self.episodes.metrics(),
            **self._statistics,
            **self.last_metrics,
            **{f"faults/{name}": count for name, count in self.faults.items()},
        }
        if ages:
            metrics["policy_age"] = sum(ages) / len(ages)
        return metrics

    def count_fault(self, name: str, count: int = 1) -> None:
        """Count something that went wrong and was survived."""
        self.faults[name] = self.faults.get(name, 0) + count

    def state_dict(self) -> dict[str, Any]:
        """Return the counters of the run; runners keep no state of it."""
        return {
            "env_steps": self.env_steps,
            "ratio": self.ratio.state_dict(),
            "episodes": self.episodes.state_dict(),
            "faults": dict(self.faults),
        }

    def load_state_dict(self, state: dict[str, Any], updates: int) -> None:
        """Go on from ``state``; the learners must hold ``updates`` updates."""
        self.env_steps = state["env_steps"]
        self.ratio.load_state_dict(state["ratio"], self.env_steps)
        self.episodes.load_state_dict(state["episodes"])
        self.faults = dict(state["faults"])
        self.updates = updates
        self._arrived = [[] for _ in range(self.learners.learners)]
        self._restart_learning()

    def relearn_from(self, state: dict[str, Any], updates: int) -> None:
        """Go on with learners that were set back to ``updates``: the updates lost since ``state`` are due again.

        Chunks that no learner was given yet are for the new ones; those that were under way are lost.
        """
        self.ratio.load_state_dict(state["ratio"], self.env_steps)
        self.updates = updates
        if self._chunks_in_flight:
            self.count_fault("chunks_lost", self._chunks_in_flight)
        self._restart_learning()

    def _restart_learning(self) -> None:
        """Begin again with learners that have nothing in flight and weights that no runner has."""
        self._updates_in_flight = self._chunks_in_flight = 0
        self.published, self._published_at = None, 0.0
        self._ready = False

    # ---- collecting --------------------------------------------------------------------------------------------------

    def _fetch(self, timeout: float) -> list[Announcement]:
        """Fetch announced chunks; ask for more unless the learners lag."""
        if self.backlog > self.bound:
            self._excuse_idle_runners()
            answers: Any = self.runners.fetch_ready_async_reqs(tags=ANNOUNCE, timeout_seconds=timeout)
        else:
            answers = self.runners.foreach_env_runner_async_fetch_ready(
                ANNOUNCE,
                kwargs={
                    "steps": self._fragment,
                    "newest": self.published,
                    "random_steps": self._random_steps_left(),
                },
                tag=ANNOUNCE,
                timeout_seconds=timeout,
                return_actor_ids=True,
            )
        announced: list[Announcement] = [answer for _, answer in answers]
        return sorted(announced, key=lambda answer: answer.born)

    def _excuse_idle_runners(self) -> None:
        """A runner that is asked for nothing is not silent; one that still owes an answer is."""
        states = self.runners._worker_manager._remote_actor_states
        for runner in self.runners.healthy_env_runner_ids():
            if not states[runner].get_num_in_flight_requests(ANNOUNCE):
                self._heard[runner] = self._listened

    def _take_chunks(self, chunks: list[Announcement]) -> None:
        for chunk in chunks:
            self._heard[chunk.runner] = self._listened
            if chunk.error is not None:
                self._fail(chunk.error)
                continue
            self._failures_in_a_row = 0
            # A stream stays with one learner: its windows must be whole there.
            self._arrived[(chunk.runner - 1) % self.learners.learners].append(chunk.chunk)
            self.env_steps += chunk.env_steps
            self.episodes.add(chunk.episodes)
            self._policy_ages.append(max(0, self.updates - chunk.policy_version))
            for name, count in chunk.faults.items():
                self.count_fault(name, count)

    def _fail(self, error: str) -> None:
        if not self.faults.get("env_runner_errors"):
            log.warning("an env runner could not collect and begins again; further times are only counted: %s", error)
        self.count_fault("env_runner_errors")
        self._failures_in_a_row += 1
        most = self.config.num_consecutive_env_runner_failures_tolerance
        if self._failures_in_a_row > most:
            raise EnvRunnersBroken(
                f"env runners failed {self._failures_in_a_row} times in a row without one chunk; the last: {error}"
            )

    def _random_steps_left(self) -> int:
        """A runner's share of the random steps still to be taken, should it have just started."""
        left = max(0, self.config.random_steps - self.env_steps)
        return -(-left // self.runners.num_remote_env_runners())

    # ---- learning ----------------------------------------------------------------------------------------------------

    def _feed_learners(self) -> None:
        if not self.ratio.started and self._ready and self.env_steps >= self.config.learning_starts:
            self.ratio.start(self.env_steps)
        while self.learners.in_flight < CALLS_IN_FLIGHT:
            updates = min(self.ratio.due(self.env_steps), self._slice()) if self._ready else 0
            if not updates and not any(self._arrived):
                return
            self._submit(updates, self._weights_wanted(updates))

    def _answers(self, ask: Callable[[], list[Answer]]) -> list[Answer]:
        try:
            return ask()
        except LearnerDied:
            raise
        except Exception:
            # Later calls met the same trouble; without them, learners can be asked to save what they have.
            self.learners.settle()
            self._updates_in_flight = self._chunks_in_flight = 0
            raise

    def _submit(self, updates: int, weights: bool = False) -> None:
        arguments = [{"chunks": chunks, "updates": updates, "weights": weights} for chunks in self._arrived]
        under_way = sum(map(len, self._arrived))
        self._arrived = [[] for _ in range(self.learners.learners)]
        self.ratio.done(updates)
        self._updates_in_flight += updates
        self._chunks_in_flight += under_way
        self.learners.submit("learn", arguments, note=(updates, under_way))

    def _weights_wanted(self, updates: int) -> bool:
        if self.published is not None and not updates:
            return False
        now = time.perf_counter()
        if now - self._published_at < self.config.broadcast_interval_s:
            return False
        self._published_at = now
        return True

    def _take_results(self, answers: list[Answer]) -> None:
        for answer in answers:
            results: list[LearnResult] = answer.results
            updates, chunks = answer.note
            self._updates_in_flight -= updates
            self._chunks_in_flight -= chunks
            self._ready = all(result.ready for result in results)
            self.updates = results[0].updates
            if updates:
                self._measure(updates, max(result.seconds for result in results))
                names = results[0].metrics
                self.last_metrics |= {
                    name: sum(result.metrics[name] for result in results) / len(results) for name in names
                }
            for result in results:
                if result.chunks_lost:
                    self.count_fault("chunks_lost", result.chunks_lost)
            self._statistics = _joined([result.statistics for result in results])
            if results[0].weights:
                self._publications += 1
                weights = results[0].weights[0]
                self.published = Published(self._publications, results[0].updates, weights, self.server)

    def _measure(self, updates: int, seconds: float) -> None:
        """Keep a smoothed estimate of updates per second, from the learners' own clocks.

        When answers come to the driver's notice says nothing: after a pause, two come at once. A learner that has
        become slower is believed at once, a faster one bit by bit: a slice that is too long keeps everybody waiting,
        one that is too short costs a message.
        """
        rate = min(updates / max(seconds, 1e-4), FASTEST_GROWTH * self._per_second)
        self._per_second += (0.3 if rate > self._per_second else 0.7) * (rate - self._per_second)

    def _slice(self) -> int:
        return max(1, round(SLICE_SECONDS * self._per_second))


def _joined(parts: list[dict[str, float]]) -> dict[str, float]:
    """Statistics of all learners: what their replay shards hold adds up, the rest is the same everywhere."""
    total = dict(parts[0])
    for name in total:
        if name.startswith("replay/") and not name.startswith("replay/row_bytes"):
            total[name] = sum(part[name] for part in parts)
    return total
