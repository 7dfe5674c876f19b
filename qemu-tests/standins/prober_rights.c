// SPDX-License-Identifier: Apache-2.0
/*
 * What the kernel says of a program's rights: users, capabilities, filter, limits, and which namespaces are its own; then
 * what it holds: whom its /proc belongs to (root where it is not dumpable), whether it leads its session, and where it may
 * write by its mounts.
 */
#include "common.h"
#include "prober.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Of /proc/PID/status, as `Name=value,value`; and of /proc/PID/limits the soft and the hard one. */
static const char *const fields[] = { "Uid",    "Gid",    "Groups", "CapInh",	  "CapPrm", "CapEff",
				      "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp" };
static const struct {
	const char *name, *key;
} limits[] = { { "Max core file size", "core" }, { "Max data size", "data" }, { "Max open files", "files" },
	       { "Max processes", "processes" } };
static const char *const spaces[] = { "mnt", "ipc", "uts", "pid", "net", "user", "cgroup" };

/* The value behind a name at the start of a line, its words joined by commas, at most `words` of them. */
static void value(const char *text, const char *name, int words, char *into, size_t size)
{
	size_t length = strlen(name), at = 0;

	*into = '\0';
	for (; text && strncmp(text, name, length); text = strchr(text, '\n'), text = text ? text + 1 : NULL)
		;
	if (!text)
		return;
	for (text += length + (text[length] == ':'); *text && *text != '\n' && words > 0; words--) {
		text += strspn(text, " \t");
		for (; *text && !isspace((unsigned char)*text) && at + 2 < size; text++)
			into[at++] = *text;
		into[at++] = ',';
		text += strspn(text, " \t");
	}
	into[at ? at - 1 : 0] = '\0';
}

static bool has_own(const char *pid, const char *space)
{
	char path[96];
	struct stat its, first;

	snprintf(path, sizeof(path), "/proc/%.16s/ns/%s", pid, space);
	bool known = stat(path, &its) == 0;

	snprintf(path, sizeof(path), "/proc/1/ns/%s", space);
	return known && stat(path, &first) == 0 && its.st_ino != first.st_ino;
}

static void tell_one(const char *pid, const char *status, const char *wanted)
{
	static char table[8192], told[700];
	char path[64], found[128];
	size_t at = (size_t)snprintf(told, sizeof(told), "probe: rights %s pid=%.16s", wanted, pid);

	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		value(status, fields[i], 8, found, sizeof(found));
		at += (size_t)snprintf(told + at, sizeof(told) - at, " %s=%s", fields[i], found);
	}
	snprintf(path, sizeof(path), "/proc/%.16s/limits", pid);
	if (read_text(path, table, sizeof(table)) < 0)
		*table = '\0';
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
		value(table, limits[i].name, 2, found, sizeof(found));
		at += (size_t)snprintf(told + at, sizeof(told) - at, " %s=%s", limits[i].key, found);
	}
	at += (size_t)snprintf(told + at, sizeof(told) - at, " own=");
	for (size_t i = 0; i < sizeof(spaces) / sizeof(*spaces); i++)
		if (has_own(pid, spaces[i]))
			at += (size_t)snprintf(told + at, sizeof(told) - at, "%s,", spaces[i]);
	tell("%s\n", told);
}

/* The places of mountinfo(5) whose mount, not only its file system, may be written. */
static void tell_holdings(const char *pid, const char *status, const char *wanted)
{
	static char text[16384], told[900];
	char path[64], session[64], pages[16];
	struct stat own = { 0 };

	snprintf(path, sizeof(path), "/proc/%.16s", pid);
	stat(path, &own);
	value(status, "NSsid", 1, session, sizeof(session));
	value(status, "THP_enabled", 1, pages, sizeof(pages));
	size_t at = (size_t)snprintf(told, sizeof(told), "probe: holds %s pid=%.16s owner=%u,%u leads=%s pages=%s writes=", wanted,
				     pid, own.st_uid, own.st_gid, strcmp(session, pid) ? "no" : "yes", pages);

	snprintf(path, sizeof(path), "/proc/%.16s/mountinfo", pid);
	if (read_text(path, text, sizeof(text)) < 0)
		*text = '\0';
	for (char *line = text, *next; line && *line; line = next) {
		char place[256], options[256];

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (sscanf(line, "%*s %*s %*s %*s %255s %255s", place, options) == 2 && !strncmp(options, "rw", 2) &&
		    at + strlen(place) + 2 < sizeof(told))
			at += (size_t)snprintf(told + at, sizeof(told) - at, "%s,", place);
	}
	tell("%s\n", told);
}

/* By group, which each row of the product's table has for itself; or by name. Threads and zombies are not programs. */
void do_rights(const struct line *line)
{
	static char status[8192];
	const char *wanted = word(line, 1);
	DIR *folder = opendir("/proc");
	int count = 0;

	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		char path[300], gid[64], name[64], state[32];

		snprintf(path, sizeof(path), "/proc/%s/status", entry->d_name);
		if (!isdigit((unsigned char)*entry->d_name) || read_text(path, status, sizeof(status)) < 0)
			continue;
		value(status, "Gid", 1, gid, sizeof(gid));
		value(status, "Name", 1, name, sizeof(name));
		value(status, "State", 1, state, sizeof(state));
		if (*state == 'Z' || (strcmp(gid, wanted) && strcmp(name, wanted)))
			continue;
		tell_one(entry->d_name, status, wanted);
		tell_holdings(entry->d_name, status, wanted);
		count++;
	}
	if (folder)
		closedir(folder);
	if (!count)
		tell("probe: rights %s nobody\n", wanted);
}
