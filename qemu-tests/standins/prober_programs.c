// SPDX-License-Identifier: Apache-2.0
/* Programs: start them, kill them, hear what they and the kernel log. */
#define _GNU_SOURCE
#include "prober.h"
#include "common.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* `relay` is who tells what the program says, or -1. */
struct started {
	pid_t program, relay;
};

static void tell_lines(int fd)
{
	FILE *from = fdopen(fd, "r");
	char *text = NULL;

	for (size_t size = 0; from && getline(&text, &size, from) >= 0;)
		tell("%.*s\n", (int)strcspn(text, "\n"), text);
	_exit(0);
}

/* Where standard output is the machine's console the kernel writes its log there, too, and records of it come between
 * any two bytes of a program's line. So such lines go into the log as well, each as a record. */
static struct started start_program(const struct line *line)
{
	struct started begun = { .relay = -1 };
	int output[2] = { -1, -1 };

	fflush(stdout);
	if (isatty(STDOUT_FILENO) && pipe2(output, O_CLOEXEC) == 0 && (begun.relay = fork()) == 0) {
		close(output[1]);
		tell_lines(output[0]);
	}
	begun.program = fork();
	if (begun.program == 0) {
		for (int fd = STDOUT_FILENO; output[1] >= 0 && fd <= STDERR_FILENO; fd++)
			dup2(output[1], fd);
		execv(line->word[1], line->word + 1);
		_exit(127);
	}
	for (int end = 0; end < 2 && output[end] >= 0; end++)
		close(output[end]);
	return begun;
}

void do_run(const struct line *line)
{
	long start = now_ms();
	struct started begun = start_program(line);
	int status = waitpid_retry(begun.program);
	long took = now_ms() - start;

	if (begun.relay > 0)
		waitpid_retry(begun.relay);
	tell("probe: run %s exit=%d ms=%ld\n", word(line, 1), status, took);
}

void do_spawn(const struct line *line)
{
	report("spawn", word(line, 1), start_program(line).program > 0, -1);
}

/* A socket that peers can connect to, on that port of the vsock; or -1. */
static int listen_on(const char *port)
{
	struct sockaddr_vm at = { .svm_family = AF_VSOCK, .svm_port = (unsigned)atol(port), .svm_cid = VMADDR_CID_ANY };
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || (bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(fd, 8) == 0))
		return fd;
	close(fd);
	return -1;
}

/* As a VM's init does it: whoever connects is told the document. The child lives as long as the machine. */
void do_answer(const struct line *line)
{
	int fd = listen_on(word(line, 1)), client;
	static char text[65536];

	report("answer", word(line, 1), fd >= 0, -1);
	fflush(stdout);
	if (fd >= 0 && fork() == 0)
		while ((client = accept(fd, NULL, NULL)) >= 0) {
			long length = read_text(word(line, 2), text, sizeof(text));

			if (length > 0)
				send(client, text, (size_t)length, MSG_NOSIGNAL);
			close(client);
		}
	close(fd);
}

/* The host says when the script goes on: what it waits for can be seen from there alone. */
void do_called(const struct line *line)
{
	long start = now_ms();
	struct pollfd caller = { .fd = listen_on(word(line, 1)), .events = POLLIN };
	int found = caller.fd < 0 ? -1 : poll(&caller, 1, atoi(word(line, 2)));

	if (found == 0)
		errno = ETIME;
	report("called", word(line, 1), found > 0, now_ms() - start);
	close(caller.fd);
}

/* How many other processes have that name and could be sent the signal; 0 only asks. */
static int signal_all(const char *wanted, int number)
{
	char path[64], name[WORD_MAX];
	DIR *folder = opendir("/proc");
	int hit = 0;

	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		snprintf(path, sizeof(path), "/proc/%.16s/comm", entry->d_name);
		if (!isdigit((unsigned char)*entry->d_name) || atoi(entry->d_name) == getpid() || read_text(path, name, sizeof(name)) < 0)
			continue;
		name[strcspn(name, "\n")] = '\0';
		if (!strncmp(name, wanted, 15) && kill(atoi(entry->d_name), number) == 0)
			hit++;
	}
	if (folder)
		closedir(folder);
	return hit;
}

void do_kill(const struct line *line)
{
	const char *wanted = word(line, 1);
	int number = atoi(word(line, 2));
	int hit = isdigit((unsigned char)*wanted) ? kill(atoi(wanted), number) == 0 : signal_all(wanted, number);

	tell("probe: kill %s %d hit=%d\n", wanted, number, hit);
}

void do_await(const struct line *line)
{
	long start = now_ms(), limit = line->count > 2 ? atol(word(line, 2)) : 10000;
	bool there;

	while (!(there = signal_all(word(line, 1), 0) > 0) && now_ms() - start < limit)
		sleep_ms(20);
	report("await", word(line, 1), there, now_ms() - start);
}

/* The stamp of syslog(3) differs from run to run and says nothing here: `Nov 21 10:00:00 ` is cut out. */
static void print_datagram(char *text)
{
	enum { STAMP = 16 };
	char *close = strchr(text, '>');

	if (*text == '<' && close && strlen(close + 1) > STAMP && close[STAMP] == ' ')
		tell("probe: syslog %.*s%s\n", (int)(close + 1 - text), text, close + 1 + STAMP);
	else
		tell("probe: syslog %s\n", text);
}

void do_syslog(const struct line *line)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char text[4096];
	ssize_t length;

	(void)line;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		report("syslog", "/dev/log", false, -1);
		return;
	}
	if (fork() == 0)
		while ((length = recv(fd, text, sizeof(text) - 1, 0)) >= 0) {
			text[length] = '\0';
			print_datagram(text);
		}
	close(fd);
}

void do_kmsg(const struct line *line)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	for (char *text; fd >= 0 && (text = next_record(fd));)
		if (strstr(text, word(line, 1)))
			tell("probe: kmsg %s\n", text);
	if (fd >= 0)
		close(fd);
}

void do_heard(const struct line *line)
{
	long start = now_ms();
	bool there = await_record(line->rest, atol(word(line, 1)));

	errno = ETIME;
	report("heard", line->rest, there, now_ms() - start);
}
