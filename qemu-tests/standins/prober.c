// SPDX-License-Identifier: Apache-2.0
/*
 * Runs a script of probes inside the guest and prints what it found; every line it prints begins with `probe: `. It is
 * the init of hardware tests, and beside a real init it is the hand that breaks things at a given moment.
 *
 * Commands, one a line; # begins a comment. PATH arguments contain no blanks.
 *   mount TYPE PATH            make folders, mount                    -> probe: mount PATH ok | error NAME
 *   insmod FILE [PARAMETERS]   load a module                          -> probe: insmod FILE ok | error NAME
 *   rmmod NAME                                                        -> probe: rmmod NAME ok | error NAME
 *   cat PATH                   every line of a text file              -> probe: cat PATH: LINE | error NAME
 *   grep PATH TEXT             the lines with TEXT                    -> as cat
 *   hex PATH [N]               first N bytes                          -> probe: hex PATH 0123ab... | error NAME
 *   peek PATH OFFSET           a 32-bit register through mmap         -> probe: peek PATH OFFSET 180000a1 | error NAME
 *   ls PATH                    names, sorted                          -> probe: ls PATH: a b c | error NAME
 *   link PATH                                                         -> probe: link PATH -> TARGET | error NAME
 *   node PATH MAJOR MINOR      make a character node; MAJOR may be a name from /proc/devices
 *   open PATH                  open, close at once, timed             -> probe: open PATH ok ms=12 | error NAME ms=12
 *   hold PATH                  the same, but stays open               -> probe: hold PATH ok ms=12 | ...
 *   release PATH               close what hold opened                 -> probe: release PATH ok | error NAME
 *   parallel PATH PATH...      open all at the same time, close       -> probe: parallel ok=2 failed=0 ms=9
 *   write PATH TEXT            write TEXT and a newline               -> probe: write PATH ok | error NAME
 *   run PATH ARGS...           run a program, report its exit         -> probe: run PATH exit=0 ms=31
 *   spawn PATH ARGS...         start a program and go on              -> probe: spawn PATH ok
 *   syslog                     take /dev/log from here on             -> probe: syslog <30>... for each datagram
 *   kmsg TEXT                  lines of the kernel log with TEXT      -> probe: kmsg LINE
 *   loopback                   bring lo up                            -> probe: loopback lo ok | error NAME
 *   sleep MS | wait PATH MS (until PATH exists) | kill NAME SIGNAL (all others of that /proc/PID/comm) | say TEXT | poweroff
 */
#define _GNU_SOURCE
#include "common.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS_MAX = 32, HELD_MAX = 64 };

struct line {
	int count;
	char *word[WORDS_MAX];
	char rest[1024];	/* what follows the second word, blanks kept */
};

static struct {
	char path[WORD_MAX];
	int fd;
} held[HELD_MAX];

static const char *word(const struct line *line, int index)
{
	return index < line->count ? line->word[index] : "";
}

static void report(const char *verb, const char *path, bool ok, long ms)
{
	char time[32] = "";
	const char *reason = strerrorname_np(errno);

	if (ms >= 0)
		snprintf(time, sizeof(time), " ms=%ld", ms);
	if (ok)
		printf("probe: %s %s ok%s\n", verb, path, time);
	else
		printf("probe: %s %s error %s%s\n", verb, path, reason, time);
}

static void do_mount(const struct line *line)
{
	make_folders(word(line, 2), 0755);
	report("mount", word(line, 2), mount(word(line, 1), word(line, 2), word(line, 1), 0, NULL) == 0, -1);
}

static void do_insmod(const struct line *line)
{
	int fd = open(word(line, 1), O_RDONLY | O_CLOEXEC);
	long start = now_ms();

	report("insmod", word(line, 1), fd >= 0 && syscall(SYS_finit_module, fd, line->rest, 0) == 0, now_ms() - start);
	if (fd >= 0)
		close(fd);
}

static void do_rmmod(const struct line *line)
{
	report("rmmod", word(line, 1), syscall(SYS_delete_module, word(line, 1), O_NONBLOCK) == 0, -1);
}

static void do_cat(const struct line *line)
{
	static char text[TEXT_MAX];
	const char *wanted = strcmp(line->word[0], "grep") ? "" : line->rest;

	if (read_text(word(line, 1), text, sizeof(text)) < 0) {
		report("cat", word(line, 1), false, -1);
		return;
	}
	for (char *row = strtok(text, "\n"); row; row = strtok(NULL, "\n"))
		if (strstr(row, wanted))
			printf("probe: cat %s: %s\n", word(line, 1), row);
}

static void do_hex(const struct line *line)
{
	static char data[TEXT_MAX];
	long length = read_text(word(line, 1), data, sizeof(data));
	long wanted = line->count > 2 ? atol(word(line, 2)) : 64;

	if (length < 0) {
		report("hex", word(line, 1), false, -1);
		return;
	}
	printf("probe: hex %s ", word(line, 1));
	for (long i = 0; i < length && i < wanted; i++)
		printf("%02x", (unsigned char)data[i]);
	putchar('\n');
}

static void do_peek(const struct line *line)
{
	enum { PAGE = 4096 };
	unsigned long at = strtoul(word(line, 2), NULL, 0);
	int fd = open(word(line, 1), O_RDWR | O_CLOEXEC);
	void *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, (off_t)(at & ~(PAGE - 1UL)));

	if (page == MAP_FAILED)
		report("peek", word(line, 1), false, -1);
	else
		printf("probe: peek %s %s %08x\n", word(line, 1), word(line, 2),
		       *(volatile unsigned *)((char *)page + (at & (PAGE - 1UL))));
	if (page != MAP_FAILED)
		munmap(page, PAGE);
	if (fd >= 0)
		close(fd);
}

static int visible(const struct dirent *entry)
{
	return *entry->d_name != '.';
}

static void do_ls(const struct line *line)
{
	struct dirent **names;
	int count = scandir(word(line, 1), &names, visible, alphasort);

	if (count < 0) {
		report("ls", word(line, 1), false, -1);
		return;
	}
	printf("probe: ls %s:", word(line, 1));
	for (int i = 0; i < count; i++)
		printf(" %s", names[i]->d_name);
	putchar('\n');
}

static void do_link(const struct line *line)
{
	char target[4096];
	ssize_t length = readlink(word(line, 1), target, sizeof(target) - 1);

	if (length < 0)
		report("link", word(line, 1), false, -1);
	else
		printf("probe: link %s -> %.*s\n", word(line, 1), (int)length, target);
}

/* A number, or the major of a driver by its name in /proc/devices. */
static int find_major(const char *name)
{
	static char text[TEXT_MAX];
	char found[WORD_MAX];
	int number;

	if (isdigit((unsigned char)*name))
		return atoi(name);
	if (read_text("/proc/devices", text, sizeof(text)) < 0)
		return -1;
	for (char *row = strtok(text, "\n"); row; row = strtok(NULL, "\n"))
		if (sscanf(row, "%d %255s", &number, found) == 2 && !strcmp(found, name))
			return number;
	errno = ENXIO;
	return -1;
}

static void do_node(const struct line *line)
{
	int number = find_major(word(line, 2));

	report("node", word(line, 1),
	       number >= 0 && mknod(word(line, 1), S_IFCHR | 0666, makedev((unsigned)number, (unsigned)atoi(word(line, 3)))) == 0,
	       -1);
}

static int open_timed(const char *verb, const char *path)
{
	long start = now_ms();
	int fd = open(path, O_RDWR | O_CLOEXEC);

	report(verb, path, fd >= 0, now_ms() - start);
	return fd;
}

static void do_open(const struct line *line)
{
	int fd = open_timed("open", word(line, 1));

	if (fd >= 0)
		close(fd);
}

static void do_hold(const struct line *line)
{
	int fd = open_timed("hold", word(line, 1));

	for (int i = 0; fd >= 0 && i < HELD_MAX; i++)
		if (!*held[i].path) {
			snprintf(held[i].path, sizeof(held[i].path), "%s", word(line, 1));
			held[i].fd = fd;
			return;
		}
}

static void do_release(const struct line *line)
{
	for (int i = 0; i < HELD_MAX; i++)
		if (!strcmp(held[i].path, word(line, 1))) {
			*held[i].path = '\0';
			report("release", word(line, 1), close(held[i].fd) == 0, -1);
			return;
		}
	errno = ENOENT;
	report("release", word(line, 1), false, -1);
}

static void do_parallel(const struct line *line)
{
	int ok = 0, failed = 0;
	long start = now_ms();

	for (int i = 1; i < line->count; i++)
		if (fork() == 0)
			_exit(open(line->word[i], O_RDWR) < 0);
	for (int status; wait(&status) > 0;)
		status == 0 ? ok++ : failed++;
	printf("probe: parallel ok=%d failed=%d ms=%ld\n", ok, failed, now_ms() - start);
}

static void do_write(const struct line *line)
{
	char text[1026];
	int fd = open(word(line, 1), O_WRONLY | O_CLOEXEC);
	int length = snprintf(text, sizeof(text), "%s\n", line->rest);

	report("write", word(line, 1), fd >= 0 && write(fd, text, (size_t)length) == length, -1);
	if (fd >= 0)
		close(fd);
}

static pid_t start_program(const struct line *line)
{
	fflush(stdout);
	pid_t child = fork();

	if (child == 0) {
		execv(line->word[1], line->word + 1);
		_exit(127);
	}
	return child;
}

static void do_run(const struct line *line)
{
	long start = now_ms();
	int status = waitpid_retry(start_program(line));

	printf("probe: run %s exit=%d ms=%ld\n", word(line, 1), status, now_ms() - start);
}

static void do_spawn(const struct line *line)
{
	report("spawn", word(line, 1), start_program(line) > 0, -1);
}

/* The stamp of syslog(3) differs from run to run and says nothing here: `Nov 21 10:00:00 ` is cut out. */
static void print_datagram(char *text)
{
	enum { STAMP = 16 };
	char *close = strchr(text, '>');

	if (*text == '<' && close && strlen(close + 1) > STAMP && close[STAMP] == ' ')
		printf("probe: syslog %.*s%s\n", (int)(close + 1 - text), text, close + 1 + STAMP);
	else
		printf("probe: syslog %s\n", text);
}

static void do_syslog(const struct line *line)
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

static void do_kmsg(const struct line *line)
{
	char record[8192];
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	const char *wanted = word(line, 1);
	ssize_t length;

	while (fd >= 0 && ((length = read(fd, record, sizeof(record) - 1)) > 0 || errno == EPIPE)) {
		record[length > 0 ? length : 0] = '\0';
		record[strcspn(record, "\n")] = '\0';
		char *text = strchr(record, ';');

		if (text && strstr(text, wanted))
			printf("probe: kmsg %s\n", text + 1);
	}
	if (fd >= 0)
		close(fd);
}

static void do_loopback(const struct line *line)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)line;
	report("loopback", "lo", fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0, -1);
	if (fd >= 0)
		close(fd);
}

static void do_sleep(const struct line *line)
{
	sleep_ms(atol(word(line, 1)));
}

static void do_wait(const struct line *line)
{
	long start = now_ms(), limit = line->count > 2 ? atol(word(line, 2)) : 10000;
	bool there;

	while (!(there = access(word(line, 1), F_OK) == 0) && now_ms() - start < limit)
		sleep_ms(10);
	report("wait", word(line, 1), there, now_ms() - start);
}

static void do_kill(const struct line *line)
{
	char path[64], name[WORD_MAX];
	DIR *folder = opendir("/proc");
	int hit = 0;

	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		snprintf(path, sizeof(path), "/proc/%.16s/comm", entry->d_name);
		if (!isdigit((unsigned char)*entry->d_name) || atoi(entry->d_name) == getpid() || read_text(path, name, sizeof(name)) < 0)
			continue;
		name[strcspn(name, "\n")] = '\0';
		if (!strncmp(name, word(line, 1), 15) && kill(atoi(entry->d_name), atoi(word(line, 2))) == 0)
			hit++;
	}
	if (folder)
		closedir(folder);
	printf("probe: kill %s %s hit=%d\n", word(line, 1), word(line, 2), hit);
}

static void do_say(const struct line *line)
{
	printf("probe: say %s %s\n", word(line, 1), line->rest);
}

static void do_poweroff(const struct line *line)
{
	(void)line;
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
}

static const struct {
	const char *name;
	void (*act)(const struct line *line);
} commands[] = {
	{ "mount", do_mount },	 { "insmod", do_insmod },     { "rmmod", do_rmmod },	 { "cat", do_cat },
	{ "hex", do_hex },	 { "ls", do_ls },	      { "link", do_link },	 { "node", do_node },
	{ "open", do_open },	 { "hold", do_hold },	      { "release", do_release }, { "parallel", do_parallel },
	{ "write", do_write },	 { "run", do_run },	      { "kmsg", do_kmsg },	 { "sleep", do_sleep },
	{ "wait", do_wait },	 { "kill", do_kill },	      { "say", do_say },	 { "poweroff", do_poweroff },
	{ "grep", do_cat },	 { "spawn", do_spawn },    { "syslog", do_syslog },
	{ "loopback", do_loopback },  { "peek", do_peek },
};

static void split(struct line *line, char *text)
{
	size_t head = strspn(text, " ");

	for (int skip = 0; skip < 2; skip++) {	/* the rest begins after two words */
		head += strcspn(text + head, " ");
		head += strspn(text + head, " ");
	}
	snprintf(line->rest, sizeof(line->rest), "%s", text + head);
	line->count = 0;
	for (char *at = strtok(text, " "); at && line->count < WORDS_MAX - 1; at = strtok(NULL, " "))
		line->word[line->count++] = at;
	line->word[line->count] = NULL;
}

static void obey(char *text)
{
	struct line line;

	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	split(&line, text);
	if (!line.count || *line.word[0] == '#')
		return;
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(commands[i].name, line.word[0])) {
			commands[i].act(&line);
			return;
		}
	printf("probe: unknown command %s\n", line.word[0]);
}

int main(int argc, char **argv)
{
	static char script[TEXT_MAX];
	const char *path = argc > 1 ? argv[1] : LAB_DIR "/script";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (read_text(path, script, sizeof(script)) < 0) {
		printf("probe: cannot read %s: %m\n", path);
		return 2;
	}
	for (char *line = script, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		obey(line);
	}
	if (getpid() == 1)
		do_poweroff(NULL);
	return 0;
}
