// SPDX-License-Identifier: Apache-2.0
/*
 * What kata-agent does with a create request, as far as devices are concerned, then a real OCI runtime. No RPC, no
 * storages: the request lies in /lab/container, one fully qualified device name a line, as the values of annotations
 * cdi.k8s.io/... carry it; the container's root and its configuration lie in /lab/bundle.
 *   1. /var/run/cdi is read as a whole: one file that cannot be used is fatal ("error refreshing cache").
 *   2. A kind that no file has is waited for, one try a second (agent.cdi_timeout, 100); a device that its kind lacks is
 *      fatal at once.
 *      Without a device in the request (`none`) all this is left out, and a container is run that is not in need of any.
 *   3. The edits go into config.json (the image's own guest-cdi does this), then crun runs the bundle with its hooks.
 * Every start of guest-cdi costs an emulated machine a second, so injecting is what tells whether the files are good;
 * which of the two it was that failed is asked afterwards.
 * Every line begins with `engine: `; the container's own lines are qemu-tests/container/look.c's.
 *   engine: refused WHY          engine: injected N ms=M          engine: ended status=N ms=M
 *   engine: gpu ROW              at the end: a row of /proc/nvidia-lab: who attached the GPU, and how often
 */
#include "common.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUEST LAB_DIR "/container"
#define SOURCE LAB_DIR "/bundle"
#define BUNDLE "/run/kata-containers/lab"
#define SPECS "/var/run/cdi"

enum { WORDS = 160, MOST = 40, REFUSED = 65, TRIES = 100, NAME_SIZE = 256 };

static char devices[MOST][NAME_SIZE], specs[MOST][NAME_SIZE * 2];
static int device_count, spec_count;
static const char *config = SOURCE "/config.json";

static void tell_attaches(void)
{
	static char text[TEXT_MAX];

	if (read_text("/proc/nvidia-lab", text, sizeof(text)) < 0)
		return;
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		tell("engine: gpu %s\n", line);
}

static void refuse(const char *why, const char *which)
{
	tell("engine: refused %s%s%s\n", why, *which ? " " : "", which);
	tell_attaches();
	exit(REFUSED);
}

/* What it and its children print is told line by line, like our own words. */
static int run(char **argv, char **environment)
{
	char line[4096];
	int ends[2];

	if (pipe(ends) < 0)
		refuse("no pipe:", strerror(errno));
	pid_t child = fork();

	if (child == 0) {
		dup2(ends[1], STDOUT_FILENO);
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		execve(argv[0], argv, environment);
		fprintf(stderr, "engine: cannot start %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	close(ends[1]);
	FILE *said = fdopen(ends[0], "r");

	while (said && fgets(line, sizeof(line), said))
		tell("%s%s", line, line[strcspn(line, "\n")] ? "" : "\n");
	if (said)
		fclose(said);
	return child < 0 ? -1 : waitpid_retry(child);
}

static void read_request(void)
{
	static char text[TEXT_MAX];

	if (read_text(REQUEST, text, sizeof(text)) < 0)
		refuse("no request in", REQUEST);
	for (char *line = strtok(text, ",\n"); line && device_count < MOST; line = strtok(NULL, ",\n"))
		snprintf(devices[device_count++], NAME_SIZE, "%s", line);
	if (!device_count)
		refuse("no CDI annotations, no devices to inject", "");
	if (!strcmp(devices[0], "none")) {
		device_count = 0;
		config = SOURCE "/plain.json";
	}
}

static int is_spec(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".json"));
}

static void list_specs(void)
{
	struct dirent **names;
	int count = scandir(SPECS, &names, is_spec, alphasort);

	spec_count = 0;
	for (int i = 0; i < count && spec_count < MOST; i++)
		snprintf(specs[spec_count++], sizeof(*specs), SPECS "/%s", names[i]->d_name);
}

/* Every file together, so that two files that define one device are found, too. */
static void check_specs(void)
{
	char *argv[WORDS] = { "/usr/bin/guest-cdi", "validate" };
	char *environment[] = { NULL };

	for (int i = 0; i < spec_count; i++)
		argv[2 + i] = specs[i];
	if (spec_count && run(argv, environment) != 0)
		refuse("error refreshing cache", "");
}

/* `kind: nvidia.com/gpu` at the start of a line: what the product and its reference both write. */
static bool has_kind(const char *device)
{
	static char text[TEXT_MAX];
	char line[NAME_SIZE + 16];

	snprintf(line, sizeof(line), "kind: %.*s\n", (int)strcspn(device, "="), device);
	for (int i = 0; i < spec_count; i++)
		if (read_text(specs[i], text, sizeof(text)) >= 0 && strstr(text, line))
			return true;
	return false;
}

static void await_kinds(void)
{
	char limit[WORD_MAX] = "";
	long tries = cmdline_value("agent.cdi_timeout", limit, sizeof(limit)) ? strtol(limit, NULL, 10) : TRIES;

	for (long i = 0; i <= tries; i++, sleep_ms(1000)) {
		int missing = 0;

		list_specs();
		for (int j = 0; j < device_count; j++)
			missing += !has_kind(devices[j]);
		if (!missing)
			return;
		check_specs();
		tell("engine: waiting for CDI spec(s) to be generated (%ld of %ld max tries)\n", i, tries);
	}
	refuse("failed to inject devices after CDI timeout of", *limit ? limit : "100");
}

/* As in Kata: a folder below /run, where the container's root is a mount of its own. */
static void make_bundle(void)
{
	static char text[TEXT_MAX];

	if (!make_folders(BUNDLE "/rootfs", 0755) || mount(SOURCE "/rootfs", BUNDLE "/rootfs", NULL, MS_BIND | MS_REC, NULL) < 0)
		refuse("container root:", strerror(errno));
	if (read_text(config, text, sizeof(text)) < 0 || !write_text(BUNDLE "/config.json", text, 0600))
		refuse("config.json:", strerror(errno));
}

static void inject(void)
{
	char *argv[WORDS] = { "/usr/bin/guest-cdi", "inject", "--bundle", BUNDLE };
	char *environment[] = { NULL };
	long start = now_ms();
	int at = 4;

	for (int i = 0; i < spec_count; i++) {	/* a file that is named must be good, one in a folder need not be */
		argv[at++] = "--spec";
		argv[at++] = specs[i];
	}
	for (int i = 0; i < device_count; i++)
		argv[at++] = devices[i];
	if (run(argv, environment) != 0) {
		check_specs();
		refuse("CDI device(s) do not exist:", devices[0]);
	}
	tell("engine: injected %d ms=%ld\n", device_count, now_ms() - start);
}

/* An initramfs cannot be pivoted away from; kata-agent chroots there, too. */
static void start(void)
{
	char *argv[] = { LAB_DIR "/crun/crun", "--root=/run/crun", "--cgroup-manager=cgroupfs", "run", "--no-pivot",
			 "--bundle", BUNDLE, "lab", NULL };
	char *environment[] = { "LD_LIBRARY_PATH=" LAB_DIR "/crun", NULL };
	long begin = now_ms();
	int status = run(argv, environment);

	tell("engine: ended status=%d ms=%ld\n", status, now_ms() - begin);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	read_request();
	if (device_count)
		await_kinds();
	make_bundle();
	if (device_count)
		inject();
	start();
	tell_attaches();
	return 0;
}
