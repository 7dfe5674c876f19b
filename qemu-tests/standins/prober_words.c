// SPDX-License-Identifier: Apache-2.0
/* What every command of the prober begins and ends with: its words, and the line that tells how it went. */
#define _GNU_SOURCE
#include "common.h"
#include "prober.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *word(const struct line *line, int index)
{
	return index < line->count ? line->word[index] : "";
}

void report(const char *verb, const char *path, bool ok, long ms)
{
	char time[32] = "";
	const char *reason = strerrorname_np(errno);

	if (ms >= 0)
		snprintf(time, sizeof(time), " ms=%ld", ms);
	if (ok)
		tell("probe: %s %s ok%s\n", verb, path, time);
	else
		tell("probe: %s %s error %s%s\n", verb, path, reason, time);
}
