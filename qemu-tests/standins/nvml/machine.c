/* SPDX-License-Identifier: Apache-2.0 */
/* Where the description is found, when it is read again, and how the state file is written. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine.h"

#define ENVIRONMENT_VARIABLE "NVRC_NVML_MOCK"
#define FILE_NAME "nvml-mock.conf"
#define FALLBACK "/etc/" FILE_NAME

struct stamp { dev_t device; ino_t inode; off_t size; struct timespec changed; };
static struct stamp description_stamp, state_stamp;
static char description[PATH_MAX], directory[PATH_MAX];

/* $NVRC_NVML_MOCK, else nvml-mock.conf beside this library, else /etc/nvml-mock.conf. */
static void locate(void)
{
	const char *named = getenv(ENVIRONMENT_VARIABLE);
	Dl_info here;
	char *slash;

	snprintf(description, sizeof description, "%s", named ? named : FALLBACK);
	if (named == NULL && dladdr((void *)(uintptr_t)&locate, &here) && strchr(here.dli_fname, '/')) {
		char beside[PATH_MAX], real[PATH_MAX];

		if (realpath(here.dli_fname, real) == NULL)
			snprintf(real, sizeof real, "%s", here.dli_fname);
		*strrchr(real, '/') = '\0';
		if (snprintf(beside, sizeof beside, "%s/" FILE_NAME, real) < (int)sizeof beside && access(beside, R_OK) == 0)
			memcpy(description, beside, sizeof description);
	}
	memcpy(directory, description, sizeof directory);
	slash = strrchr(directory, '/');
	if (slash)
		*slash = '\0';
	else
		snprintf(directory, sizeof directory, ".");
}

static struct stamp stamp_of(const char *path)
{
	struct stat status;
	struct stamp stamp = { 0 };

	if (*path == '\0' || stat(path, &status) != 0)
		return stamp;
	return (struct stamp){ status.st_dev, status.st_ino, status.st_size, status.st_mtim };
}

static bool same(const struct stamp *a, const struct stamp *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size &&
		a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

static bool read_file(const char *path)
{
	FILE *stream = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	unsigned number = 0;
	const char *problem = NULL;

	if (stream == NULL) {
		fprintf(stderr, "nvml stand-in: %s: %s\n", path, strerror(errno));
		return false;
	}
	while (problem == NULL && getline(&line, &size, stream) >= 0) {
		number++;
		problem = parse_line(line, directory);
		if (problem)
			fprintf(stderr, "nvml stand-in: %s:%u: %s\n", path, number, problem);
	}
	free(line);
	fclose(stream);
	return problem == NULL;
}

bool machine_load(void)
{
	struct machine before = machine;
	unsigned i;

	locate();
	memset(&machine, 0, sizeof machine);
	description_stamp = stamp_of(description);
	if (!read_file(description))
		return false;
	state_stamp = stamp_of(machine.state);
	if (state_stamp.inode != 0 && !read_file(machine.state))
		return false;
	for (i = 0; i < machine.gpu_count; i++) {
		machine.gpus[i].attached = i < before.gpu_count && before.gpus[i].attached;
		machine.gpus[i].node_fd = i < before.gpu_count ? before.gpus[i].node_fd : -1;
	}
	for (i = 0; i < machine.fault_count && i < before.fault_count; i++)
		machine.faults[i].seen = before.faults[i].seen;
	return true;
}

bool machine_refresh(void)
{
	struct stamp now = stamp_of(description), state = stamp_of(machine.state);

	return (same(&now, &description_stamp) && same(&state, &state_stamp)) || machine_load();
}

static void save_gpu(FILE *stream, unsigned index)
{
	const struct gpu *gpu = &machine.gpus[index];
	char name[96];

	fprintf(stream, "set gpu=%u locked-graphics=%u,%u locked-memory=%u,%u power-limit-mw=%u persistence=%u mig=%u mig-pending=%u\n",
		index, gpu->locked_graphics[0], gpu->locked_graphics[1], gpu->locked_memory[0], gpu->locked_memory[1],
		gpu->power_limit_mw, gpu->persistence, gpu->mig, gpu->mig_pending);
	fprintf(stream, "clear gpu=%u\n", index);
	for (const struct gpu_instance *gi = gpu->instances; gi < gpu->instances + MAX_MIG; gi++)
		if (gi->present) {
			mig_profile_name(gpu, mig_profile_by_enum(gpu, gi->profile), name, sizeof name);
			fprintf(stream, "instance gpu=%u profile=%s start=%u id=%u\n", index, name, gi->placement.start, gi->id);
		}
	for (const struct mig_device *mig = gpu->migs; mig < gpu->migs + MAX_MIG; mig++)
		if (mig->present)
			fprintf(stream, "mig gpu=%u index=%d gi=%u ci=%u slices=%u uuid=%s\n", index, (int)(mig - gpu->migs), mig->gi, mig->ci,
				ci_slices(mig->profile), mig->uuid);
}

/* The kernel's side of a MIG layout: NVIDIA's library has its module make the capabilities of an instance. */
static void tell_driver(const struct gpu *gpu)
{
	char line[512];
	int at = snprintf(line, sizeof line, "mig %04x:%02x:%02x.0", gpu->domain, gpu->bus, gpu->device);
	FILE *stream = fopen(machine.door, "we");

	for (const struct mig_device *mig = gpu->migs; mig < gpu->migs + MAX_MIG && at < (int)sizeof line; mig++)
		if (mig->present)
			at += snprintf(line + at, sizeof line - (size_t)at, " %u.%u", mig->gi, mig->ci);
	if (stream == NULL || fputs(line, stream) < 0 || fflush(stream) != 0)
		fprintf(stderr, "nvml stand-in: %s: %s\n", machine.door, strerror(errno));
	if (stream)
		fclose(stream);
}

static void tell_drivers(void)
{
	for (const struct gpu *gpu = machine.gpus; *machine.door && gpu < machine.gpus + machine.gpu_count; gpu++)
		if (gpu->mig != MIG_UNSUPPORTED)
			tell_driver(gpu);
}

void machine_save(void)
{
	char scratch[PATH_MAX + 16];
	FILE *stream;

	tell_drivers();
	if (*machine.state == '\0')
		return;
	snprintf(scratch, sizeof scratch, "%s.%d", machine.state, (int)getpid());
	stream = fopen(scratch, "we");
	if (stream == NULL) {
		fprintf(stderr, "nvml stand-in: %s: %s\n", scratch, strerror(errno));
		return;
	}
	if (machine.cc_supported)
		fprintf(stream, "cc ready=%u\n", machine.ready);
	for (unsigned i = 0; i < machine.gpu_count; i++)
		save_gpu(stream, i);
	if (fclose(stream) != 0 || rename(scratch, machine.state) != 0) {
		fprintf(stderr, "nvml stand-in: %s: %s\n", machine.state, strerror(errno));
		unlink(scratch);
		return;
	}
	state_stamp = stamp_of(machine.state);
}
