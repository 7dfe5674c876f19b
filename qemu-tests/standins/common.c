// SPDX-License-Identifier: Apache-2.0
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_MAX = 1000 };	/* what the kernel takes at a time, less its level */

/* Opened anew for each line: the kernel allows a descriptor ten records in five seconds until somebody says otherwise. */
static bool log_record(const char *line, size_t length)
{
	static const char level[] = "<8>";	/* a program's, and shown however quiet the kernel is told to be */
	char record[RECORD_MAX + sizeof(level)];
	int fd = length > RECORD_MAX ? -1 : open(LAB_LOG, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	memcpy(record, level, sizeof(level) - 1);
	memcpy(record + sizeof(level) - 1, line, length);
	bool ok = write(fd, record, length + sizeof(level) - 1) > 0;

	close(fd);
	return ok;
}

void tell(const char *format, ...)
{
	static char line[TEXT_MAX];
	static size_t have;
	va_list values;

	va_start(values, format);
	int length = vsnprintf(line + have, sizeof(line) - have, format, values);
	va_end(values);
	have = length < 0 ? have : have + (size_t)length < sizeof(line) ? have + (size_t)length : sizeof(line) - 1;
	if (!have || line[have - 1] != '\n')
		return;
	if (!log_record(line, have)) {
		fwrite(line, 1, have, stdout);
		fflush(stdout);
	}
	have = 0;
}

char *next_record(int fd)
{
	static char record[8192];
	ssize_t length;

	while ((length = read(fd, record, sizeof(record) - 1)) > 0 || (length < 0 && errno == EPIPE)) {
		record[length > 0 ? length : 0] = '\0';
		record[strcspn(record, "\n")] = '\0';
		char *text = strchr(record, ';');

		if (text && strncmp(text + 1, "probe: ", 7))
			return text + 1;
	}
	return NULL;
}

bool await_record(const char *wanted, long limit_ms)
{
	int fd = open(LAB_LOG, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	long start = now_ms();
	bool there = false;

	while (fd >= 0 && !there && now_ms() - start < limit_ms) {
		char *text = next_record(fd);

		if (text)
			there = strstr(text, wanted) != NULL;
		else
			sleep_ms(10);
	}
	if (fd >= 0)
		close(fd);
	return there;
}

long read_text(const char *path, char *into, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t have = 0;
	ssize_t got = 0;

	if (fd < 0)
		return -1;
	while (have < size - 1 && (got = read(fd, into + have, size - 1 - have)) > 0)
		have += (size_t)got;
	into[have] = '\0';
	int saved = errno;
	close(fd);
	errno = saved;
	return got < 0 ? -1 : (long)have;
}

bool write_text(const char *path, const char *text, int mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	size_t length = strlen(text);

	if (fd < 0)
		return false;
	bool ok = write(fd, text, length) == (ssize_t)length;
	int saved = errno;
	close(fd);
	errno = saved;
	return ok;
}

bool word_value(const char *line, const char *name, char *into, size_t size)
{
	size_t length = strlen(name);
	bool found = false;

	for (const char *at = line; *at;) {
		at += strspn(at, " \t\n");
		size_t word = strcspn(at, " \t\n");

		if (word > length && !strncmp(at, name, length) && at[length] == '=') {
			size_t keep = word - length - 1;

			if (keep >= size)
				keep = size - 1;
			memcpy(into, at + length + 1, keep);
			into[keep] = '\0';
			found = true;
		}
		at += word;
	}
	return found;
}

bool cmdline_value(const char *name, char *into, size_t size)
{
	static char line[TEXT_MAX];

	return read_text("/proc/cmdline", line, sizeof(line)) >= 0 && word_value(line, name, into, size);
}

bool fault_value(const char *program, const char *fault, char *into, size_t size)
{
	static char table[TEXT_MAX];
	char name[WORD_MAX];

	if (read_text(LAB_FAULTS, table, sizeof(table)) < 0)
		return false;
	snprintf(name, sizeof(name), "%s.%s", program, fault);
	size_t length = strlen(name);

	for (char *line = strtok(table, "\n"); line; line = strtok(NULL, "\n"))
		if (!strncmp(line, name, length) && line[length] == '=') {
			snprintf(into, size, "%s", line + length + 1);
			return true;
		}
	return false;
}

bool fault_number(const char *program, const char *fault, long *value)
{
	char text[WORD_MAX], *end;

	if (!fault_value(program, fault, text, sizeof(text)))
		return false;
	*value = strtol(text, &end, 0);
	if (*text && !*end)
		return true;
	fprintf(stderr, "%s: " LAB_FAULTS ": %s.%s=%s is no number\n", program, program, fault, text);
	exit(2);
}

void crash(void)
{
	volatile int *volatile nowhere = NULL;

	*nowhere = 1;
}

void sleep_ms(long ms)
{
	struct timespec left = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

long boot_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int waitpid_retry(int pid)
{
	int status, got;

	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool make_folders(const char *path, int mode)
{
	char part[4096];

	snprintf(part, sizeof(part), "%s", path);
	for (char *at = part + 1; *at; at++)
		if (*at == '/') {
			*at = '\0';
			if (mkdir(part, mode) < 0 && errno != EEXIST)
				return false;
			*at = '/';
		}
	return mkdir(part, mode) == 0 || errno == EEXIST;
}
