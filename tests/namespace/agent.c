// SPDX-License-Identifier: Apache-2.0
/* An agent for the namespace tier, where there is no kernel command line of our own to steer the stand-in agent by.
 * It does what the words in /etc/behaviour say, one after the other, and prints what it was given. Built static. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void copy_line(const char *path, const char *wanted)
{
	char line[512];
	FILE *file = fopen(path, "r");

	if (!file) {
		printf("agent: no %s\n", path);
		return;
	}
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, wanted, strlen(wanted)))
			printf("agent: %s", line);
	fclose(file);
}

static void report(void)
{
	struct rlimit files;
	char target[PATH_MAX], path[PATH_MAX];
	struct dirent *entry;
	DIR *dir = opendir("/proc/self/fd");

	getrlimit(RLIMIT_NOFILE, &files);
	printf("agent: pid=%d ppid=%d nofile=%ld/%ld cwd=%s\n", getpid(), getppid(), (long)files.rlim_cur,
	       (long)files.rlim_max, getcwd(target, sizeof(target)));
	for (char **variable = environ; *variable; variable++)
		printf("agent: env %s\n", *variable);
	copy_line("/proc/self/oom_score_adj", "");
	copy_line("/proc/self/status", "SigBlk:");
	copy_line("/proc/self/status", "SigIgn:");
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(dir))
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%.20s", entry->d_name);
		ssize_t length = readlink(path, target, sizeof(target) - 1);

		target[length < 0 ? 0 : length] = 0;
		printf("agent: fd %s -> %s\n", entry->d_name, target);
	}
	if (dir)
		closedir(dir);
	snprintf(path, sizeof(path), "/proc/%d", getpid());
	printf("agent: own /proc %s\n", access(path, F_OK) ? "no" : "yes");
}

/* What a container of ours would be given: every device node, with its numbers and whether it opens. */
static void list_nodes(const char *folder)
{
	struct dirent *entry;
	struct stat node;
	char path[PATH_MAX];
	DIR *dir = opendir(folder);

	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		if (stat(path, &node) || !S_ISCHR(node.st_mode))
			continue;
		int descriptor = open(path, O_RDWR);

		printf("agent: node %s %u:%u %o %s\n", entry->d_name, major(node.st_rdev), minor(node.st_rdev),
		       node.st_mode & 07777, descriptor < 0 ? "shut" : "open");
		if (descriptor >= 0)
			close(descriptor);
	}
	if (dir)
		closedir(dir);
	printf("agent: nodes listed\n");
}

static void orphans(int count)
{
	for (int i = 0; i < count; i++) {
		pid_t child = fork();

		if (child == 0)
			_exit(fork() == 0 ? 0 : 0);
		if (child < 0) {
			usleep(1000);
			i--;
		} else {
			waitpid(child, NULL, 0);
		}
	}
}

static void flood(int count)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	int log = socket(AF_UNIX, SOCK_DGRAM, 0);
	char text[64];

	if (connect(log, (struct sockaddr *)&to, sizeof(to)))
		perror("agent: /dev/log");
	for (int i = 0; i < count; i++) {
		int length = snprintf(text, sizeof(text), "<30>flood: message %d", i);

		if (send(log, text, length, 0) != length)
			perror("agent: send");
	}
	close(log);
}

/* Eight MB that are no line, then bytes of every kind. */
static void garbage(void)
{
	static char block[1 << 20];

	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 8; i++)
		fwrite(block, 1, sizeof(block), stdout);
	for (int i = 0; i < 65536; i++)
		putchar(i * 7919 >> 4 & 255);
	putchar('\n');
}

int main(int argc, char **argv)
{
	char words[256] = "", *word;
	FILE *file = fopen("/etc/behaviour", "r");

	if (file && !fgets(words, sizeof(words), file))
		words[0] = 0;
	if (file)
		fclose(file);
	if (argc > 1)
		snprintf(words, sizeof(words), "%s", argv[1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (word = strtok(words, " \n"); word; word = strtok(NULL, " \n")) {
		if (!strcmp(word, "report"))
			report();
		else if (!strncmp(word, "orphans:", 8))
			orphans(atoi(word + 8));
		else if (!strncmp(word, "flood:", 6))
			flood(atoi(word + 6));
		else if (!strncmp(word, "exit:", 5))
			exit(atoi(word + 5));
		else if (!strncmp(word, "sleep:", 6))
			usleep(1000 * atoi(word + 6));
		else if (!strcmp(word, "infiniband"))
			list_nodes("/dev/infiniband");
		else if (!strcmp(word, "complain"))
			printf("{\"msg\":\"cannot \\\"serve\\\"\",\"level\":\"ERRO\",\"error\":\"no address\",\"source\":\"agent\"}\n");
		else if (!strcmp(word, "panic"))
			fprintf(stderr, "\nthread 'main' panicked at src/main.rs:1:2:\n\033[1mgone\nnote: backtrace\n");
		else if (!strncmp(word, "babble:", 7))
			for (int i = 0; i < atoi(word + 7); i++)
				printf("agent: babble %d %080d\n", i, i);
		else if (!strcmp(word, "garbage"))
			garbage();
		else if (!strcmp(word, "sandbox"))
			mkdir("/run/kata-containers", 0755);
		else if (!strcmp(word, "ignore-term"))
			signal(SIGTERM, SIG_IGN);
		else if (!strcmp(word, "end-on-term"))
			signal(SIGTERM, _exit);
		else if (!strcmp(word, "crash"))
			*(volatile int *)8 = 0;
		else if (!strcmp(word, "hold")) {
			printf("agent: holding\n");
			for (;;)
				pause();
		} else if (!strcmp(word, "power-off") && getpid() == 1) {
			mkdir("/run/kata-containers", 0755); /* as with a first sandbox */
			reboot(RB_POWER_OFF);
		} else if (!strcmp(word, "give-up") && getpid() == 1)
			reboot(RB_POWER_OFF);
		else if (!strcmp(word, "restart") && getpid() == 1)
			reboot(RB_AUTOBOOT);
	}
	return 0;
}
