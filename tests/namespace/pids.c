// SPDX-License-Identifier: Apache-2.0
/*
 * What code in a daemon does that wants another program to get a pid of its own choice. It says which, and sleeps. To have the
 * kernel count to its largest pid, 32768 as a rule, and begin anew takes it a second or two; the cell does that quicker.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The pid of a process that has no parent but PID 1 when it ends, and ends well. */
static pid_t leave_orphan(void)
{
	int ends[2];
	pid_t orphan = 0, parent;

	if (pipe(ends) < 0)
		return 0;
	parent = fork();
	if (parent == 0) {
		orphan = fork();
		if (orphan == 0) {
			while (getppid() != 1)
				usleep(1000);
			orphan = getpid();
			_exit(write(ends[1], &orphan, sizeof(orphan)) != sizeof(orphan));
		}
		_exit(0);
	}
	waitpid(parent, NULL, 0);
	if (read(ends[0], &orphan, sizeof(orphan)) != sizeof(orphan))
		orphan = 0;
	usleep(100000); /* PID 1 reaps it */
	return orphan;
}

/* A child, which has the rights of the daemon that has ended, ends whoever gets the daemon's pid. */
static void outlive(void)
{
	pid_t own = getpid();

	if (fork() > 0)
		_exit(0);
	setsid(); /* a number that a session has is given to nobody */
	while (getppid() != 1)
		usleep(1000);
	usleep(100000); /* PID 1 reaps it */
	dprintf(1, "%d\n", own);
	while (kill(own, SIGKILL) < 0 && errno == ESRCH)
		usleep(1000);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "verifier") == 0)
		dprintf(1, "%d\n", leave_orphan());
	else
		outlive();
	pause();
	return 0;
}
