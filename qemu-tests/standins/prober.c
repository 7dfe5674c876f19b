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
 *   stat PATH                  of a character node                    -> probe: stat PATH 195:0 mode=666 | error NAME
 *   node PATH MAJOR MINOR      make a character node; MAJOR may be a name from /proc/devices
 *   open PATH                  open, close at once, timed             -> probe: open PATH ok ms=12 | error NAME ms=12
 *   hold PATH                  the same, but stays open               -> probe: hold PATH ok ms=12 | ...
 *   release PATH               close what hold opened                 -> probe: release PATH ok | error NAME
 *   parallel PATH PATH...      open all at the same time, close       -> probe: parallel ok=2 failed=0 ms=9
 *   write PATH TEXT            TEXT and a newline into it             -> probe: write PATH ok | error NAME
 *   append PATH TEXT           the same, at its end                   -> probe: append PATH ok | error NAME
 *   shrink PATH SIZE           a tmpfs has no more room than that     -> probe: shrink PATH ok | error NAME
 *   fill PATH [MS]             a file that takes all room there is     -> probe: fill PATH ok ms=80 | error NAME
 *   answer PORT PATH           that file to whoever connects to the vsock port -> probe: answer PORT ok | error NAME
 *   called PORT MS             until a peer connects to that vsock port -> probe: called PORT ok ms=12 | error NAME
 *   run PATH ARGS...           run a program, report its exit         -> probe: run PATH exit=0 ms=31
 *   spawn PATH ARGS...         start a program and go on              -> probe: spawn PATH ok
 *   syslog                     take /dev/log from here on             -> probe: syslog <30>... for each datagram
 *   kmsg TEXT                  lines of the kernel log with TEXT      -> probe: kmsg LINE
 *   heard MS TEXT              until the kernel's log has TEXT       -> probe: heard TEXT ok ms=12 | error NAME
 *   loopback                   bring lo up                            -> probe: loopback lo ok | error NAME
 *   await NAME MS              until a process of that /proc/PID/comm exists -> probe: await NAME ok ms=12 | error NAME
 *   rename OLD NEW             another name for a network interface -> probe: rename OLD ok | error NAME
 *   orphans N                  processes whose parent ends first       -> probe: orphans N ok | error NAME
 *   flood N                    datagrams to /dev/log                   -> probe: flood N ok | error NAME
 *   clients PATH N             of a socket that answers; of three one reads all, one hangs up, one stays silent for a while
 *                                                                      -> probe: clients PATH ok | error NAME
 *   scrapers PORT N            the same, of a page of metrics; of three one never reads what it asked for
 *                                                                      -> probe: scrapers PORT ok | error NAME
 *   flap LINK N                down and up again                       -> probe: flap LINK ok | error NAME
 *   hog                        takes all memory until the kernel kills it -> probe: hog memory ok ms=900 | error NAME
 *   census                     what PID 1 holds, in KiB and numbers    -> probe: census rss=9000 anon=5000 descriptors=20 ...
 *   rights GID                 what the kernel says of the programs of that group, or of a name -> probe: rights GID pid=...
 *                                                                      -> probe: holds GID pid=... owner=0,64901 writes=/proc,/run,
 *   loop SECONDS               the lines up to `end`, again and again -> probe: loop rounds=7
 *   kill NAME SIGNAL           all others of that /proc/PID/comm; or a pid -> probe: kill NAME 9 hit=1
 *   sleep MS | wait PATH MS (until PATH exists; a disk: until it opens) | say TEXT | poweroff
 */
#define _GNU_SOURCE
#include "prober.h"
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOP "loop "
#define END "\nend\n"

static const struct {
	const char *name;
	void (*act)(const struct line *line);
} commands[] = {
	{ "mount", do_mount },       { "insmod", do_insmod },     { "rmmod", do_rmmod },
	{ "cat", do_cat },           { "hex", do_hex },           { "ls", do_ls },
	{ "link", do_link },         { "node", do_node },         { "open", do_open },
	{ "hold", do_hold },         { "release", do_release },   { "parallel", do_parallel },
	{ "write", do_write },       { "run", do_run },           { "kmsg", do_kmsg },
	{ "sleep", do_sleep },       { "wait", do_wait },         { "kill", do_kill },
	{ "say", do_say },           { "poweroff", do_poweroff }, { "grep", do_cat },
	{ "spawn", do_spawn },       { "syslog", do_syslog },     { "loopback", do_loopback },
	{ "peek", do_peek },	     { "stat", do_stat },         { "fill", do_fill },
	{ "await", do_await },	     { "rename", do_rename },     { "shrink", do_shrink },
	{ "heard", do_heard },	     { "census", do_census },     { "orphans", do_orphans },
	{ "flood", do_flood },	     { "clients", do_clients },   { "rights", do_rights },
	{ "append", do_append },     { "scrapers", do_scrapers }, { "flap", do_flap },
	{ "hog", do_hog },	     { "answer", do_answer },
	{ "called", do_called },
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
	tell("probe: unknown command %s\n", line.word[0]);
}

static void obey_all(char *script);

/* The lines up to `end`, again and again; what is behind them. */
static char *loop(const char *head, char *body)
{
	static char round[TEXT_MAX];
	long until = now_ms() + atol(head + strlen(LOOP)) * 1000, rounds = 0;
	char *end = strstr(body, END);

	if (end)
		*end = '\0';
	for (; now_ms() < until; rounds++) {
		snprintf(round, sizeof(round), "%s", body);	/* obeying takes it apart */
		obey_all(round);
	}
	tell("probe: loop rounds=%ld\n", rounds);
	return end ? end + strlen(END) : NULL;
}

static void obey_all(char *script)
{
	for (char *line = script, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (next && !strncmp(line, LOOP, strlen(LOOP)))
			next = loop(line, next);
		else
			obey(line);
	}
}

int main(int argc, char **argv)
{
	static char script[TEXT_MAX];
	const char *path = argc > 1 ? argv[1] : LAB_DIR "/script";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (read_text(path, script, sizeof(script)) < 0) {
		tell("probe: cannot read %s: %m\n", path);
		return 2;
	}
	obey_all(script);
	if (getpid() == 1)
		do_poweroff(NULL);
	return 0;
}
