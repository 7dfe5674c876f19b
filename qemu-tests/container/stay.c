/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of the lab's container that tells where it runs, one fact a line, and stays until SIGTERM; with the argument
 * `go N` it ends with status N instead.
 *   container: pid 1
 *   container: process 1 stay          (every process of /proc, with its name)
 *   container: cgroup 0::/kubepods/lab
 *   container: stays
 *   container: SIGTERM, ending
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_first_line(const char *head, const char *path)
{
	char text[512] = "";
	FILE *file = fopen(path, "re");

	if (!file)
		return;
	if (fgets(text, sizeof(text), file))
		printf("container: %s %s", head, text);
	fclose(file);
}

static int is_process(const struct dirent *entry)
{
	return strspn(entry->d_name, "0123456789") == strlen(entry->d_name);
}

static void look_at_processes(void)
{
	struct dirent **names;
	int count = scandir("/proc", &names, is_process, versionsort);

	for (int i = 0; i < count; i++) {
		char head[300], path[300];

		snprintf(head, sizeof(head), "process %s", names[i]->d_name);
		snprintf(path, sizeof(path), "/proc/%s/comm", names[i]->d_name);
		print_first_line(head, path);
	}
}

int main(int argc, char **argv)
{
	sigset_t wanted;
	int number;

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGTERM);
	/* A handler shows the agent that the signal is wanted; blocked, it waits for sigwait. */
	signal(SIGTERM, exit);
	sigprocmask(SIG_BLOCK, &wanted, NULL);
	printf("container: pid %d\n", getpid());
	look_at_processes();
	print_first_line("cgroup", "/proc/self/cgroup");
	if (argc > 2 && !strcmp(argv[1], "go"))
		return atoi(argv[2]);
	puts("container: stays");
	sigwait(&wanted, &number);
	puts("container: SIGTERM, ending");
	return 0;
}
