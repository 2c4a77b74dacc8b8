"""How a training ends before its time, and what is left of it then.

Four things may end a training: a signal, a loss or a weight that is not finite, storage that
takes no more, and a process that is lost. Several processes have to end together: one that
waits for the gradients of another waits for ever.

**One agreement.** All processes exchange three numbers: does one of my losses since the last
time have a value that is not finite, was I asked to stop, and how long does an iteration take
(:meth:`.hook.EndingHook.agree`). They do so every ten iterations, or after each where ten
take more than two seconds, at the end of an epoch, before a validation and before a
checkpoint. So up to ten iterations may run on in memory after a bad loss. None of them is
validated or saved, and no average of the weights that has taken them in is.

**Signals.** SIGTERM, SIGUSR1 and SIGUSR2 are noted by a handler (:mod:`.signals`), and the
agreement makes them known to all. After an update, all processes save ``iter_1234.pth``
together and raise :class:`.together.Stopped`. In a validation, the first process saves at
once if the signal reached it; one process then ends, and several end the validation first.
Ctrl-C ends at once.

**Saving.** What fails in one process while a checkpoint is written, such as a full disk, fails
in all of them (:func:`.together.failing_together`).

**A lost process.** The others learn of it by their broken connection, or the launcher ends
them. The launcher names it.

Before the processes have met, signals have their default action: a process that waits for the
others in PyTorch's store runs no handler of Python's. Nothing is lost then.

The exit codes are in :mod:`lm4ve.runner.exit_codes`. An error that all processes have agreed
on is printed by the first one; one that others have had before is not printed again
(:mod:`lm4ve.runner.error_boundary`).
"""
