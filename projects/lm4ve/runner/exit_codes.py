"""What a process's exit code tells the launcher, the batch script and the user.

A launcher starts a training again for ``TRY_AGAIN`` alone. The user has to act after
``USERS_MISTAKE``; after ``STOPPED`` the one who asked the training to stop decides.
"""

#: The command did what it was asked to do.
DONE = 0
#: Something failed that another start may mend: a lost process, a full disk.
TRY_AGAIN = 1
#: The config, a file or a flag is wrong. Another start ends in the same way.
USERS_MISTAKE = 2
#: SIGTERM, SIGUSR1 or SIGUSR2 asked the training to stop. What it had is saved.
STOPPED = 143
