# SPDX-License-Identifier: Apache-2.0
"""What PID 1 lets be known about itself: report, status, and the answers on the control socket.

Never worth the VM: what goes wrong in here is said on the console and passed over.
"""

from __future__ import annotations

import time

from guest_cdi.lean.light import TYPE_CHECKING, Callable
from nvrc.engine.executor import Executor, unforeseen
from nvrc.machine.journal import Journal
from nvrc.machine.loop import Loop
from nvrc.machine.memory import give_back
from nvrc.machine.system import System
from nvrc.params.values import ReportTo
from nvrc.vocabulary import console, paths
from nvrc.vocabulary.verdict import Verdict

if TYPE_CHECKING:
    from nvrc.report.publish import Living
    from nvrc.vocabulary.trouble import Trouble

TIDY_EVERY = 64  # statuses


class Bulletin:
    """`verdict` is the one that was published last."""

    def __init__(self, system: System, executor: Executor, started_s: float) -> None:
        self._system, self._executor, self._started_s = system, executor, started_s
        self._started_cpu_s = time.process_time()
        self._cpu_s: float | None = None
        self._told = 0
        self.verdict = Verdict.BOOTING

    def boot_over(self) -> None:
        """The agent runs: what the boot cost is known."""
        self._cpu_s = time.process_time() - self._started_cpu_s

    def publish(self, verdict: Verdict, journal: Journal, life: Living | None, failure: Trouble | None = None) -> None:
        """Report and status; the report on the console as well, where that was asked for."""
        is_news = self.verdict is not verdict
        self.verdict = verdict
        try:
            from nvrc.report import publish, report

            boot = publish.describe(self._system, self._executor, started_s=self._started_s, verdict=verdict,
                                    journal=journal, failure=failure, cpu_s=self._cpu_s)
            document = report.to_json(boot)
        except Exception as err:
            self._warn(f"no report: {unforeseen(err)}")
            return
        try:
            publish.write(self._system, boot, document, journal=journal, life=life)
        except Exception as err:  # say where /run is full: then the console is all that is left
            self._warn(f"no report below {paths.RUN}: {unforeseen(err)}")
        if is_news:
            self._print(document)

    def _print(self, document: bytes) -> None:
        """The report on the console, where that was asked for."""
        parameters = self._executor.facts.parameters
        if parameters is not None and parameters.settings.report is ReportTo.CONSOLE:
            for line in console.report_lines(document):
                self._system.say(line)

    def publish_life(self, verdict: Verdict, journal: Journal, life: Living | None) -> None:
        """The status alone: the report is about the boot."""
        self.verdict = verdict
        try:
            from nvrc.report import publish

            publish.write_status(self._system, self._executor, verdict=verdict, journal=journal, life=life)
        except Exception as err:
            self._warn(f"no status below {paths.RUN}: {unforeseen(err)}")

    def serve(self, loop: Loop, answer: Callable[[], bytes]) -> None:
        """Answer whoever asks for the status, for the life of the VM."""
        try:
            from nvrc.machine import control
            from nvrc.machine.foreign import Burden

            listener, owners, burden = self._system.listen_control(paths.CONTROL), (0, *self._others()), Burden()
            loop.watch_in_turns(listener, lambda: control.serve(listener, answer, burden, owners))
        except Exception as err:
            self._warn(f"PID 1 does not answer on {paths.CONTROL}: {unforeseen(err)}")

    def _others(self) -> tuple[int, ...]:
        """The user that serves metrics, where the command line asks for them."""
        parameters = self._executor.facts.parameters
        if parameters is None or parameters.settings.metrics_port is None:
            return ()
        from nvrc.machine.privileges import METRICS_ACCOUNT

        return (METRICS_ACCOUNT.uid,)

    def serve_host(self, loop: Loop, listener: int, answer: Callable[[], bytes]) -> None:
        """The same for the host of the VM, where the command line asks for it."""
        try:
            from nvrc.machine.window import Window

            Window(loop, listener, answer, self._system.now)
        except Exception as err:
            self._warn(f"PID 1 does not answer the host: {unforeseen(err)}")

    def live(self, journal: Journal, life: Living | None) -> bytes:
        """The status as of now; empty when it cannot be made."""
        self._told += 1
        if self._told % TIDY_EVERY == 0:
            give_back()
        try:
            from nvrc.report import publish

            return publish.live_status(self._system, self._executor, verdict=self.verdict, journal=journal, life=life)
        except Exception as err:
            self._warn(f"no status for {paths.CONTROL}: {unforeseen(err)}")
            return b""

    def _warn(self, text: str) -> None:
        self._system.say(console.warning_line(text))
