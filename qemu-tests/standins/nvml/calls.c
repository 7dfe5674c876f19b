/* SPDX-License-Identifier: Apache-2.0 */
/* The frame around every entry point: faults, log, lock, and handles. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "calls.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
unsigned init_count;

/* One line, one write: monotonic seconds, pid, function, arguments, outcome. */
static void record(const struct call *call, const char *outcome)
{
	struct timespec now;
	char line[512];
	int length, fd;

	if (*machine.log == '\0')
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	length = snprintf(line, sizeof line, "%lld.%09ld %d %s%s%s -> %s\n", (long long)now.tv_sec, now.tv_nsec, (int)getpid(),
		call->name, *call->arguments ? " " : "", call->arguments, outcome);
	fd = open(machine.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd < 0 || length < 0 || write(fd, line, (size_t)length) != length)
		fprintf(stderr, "nvml stand-in: cannot write %s\n", machine.log);
	if (fd >= 0)
		close(fd);
}

/* nvmlInit, nvmlInit_v2 and nvmlInitWithFlags are one call to whoever writes a fault. */
static size_t stem(const char *name)
{
	size_t length = strlen(name);

	if (length > 3 && name[length - 3] == '_' && name[length - 2] == 'v')
		return length - 3;
	if (length > 9 && strcmp(name + length - 9, "WithFlags") == 0)
		return length - 9;
	return length;
}

static bool concerns(const struct fault *fault, const struct call *call)
{
	size_t length = stem(call->name);

	if (strcmp(fault->function, "*") == 0) {
		if (call->gpu == NO_GPU)
			return false;
	} else if (stem(fault->function) != length || strncmp(fault->function, call->name, length) != 0) {
		return false;
	}
	return (fault->gpu < 0 || fault->gpu == call->gpu) && (fault->mig < 0 || fault->mig == call->mig);
}

static void meet(const struct fault *fault, struct call *call)
{
	struct timespec wait = { fault->value / 1000, (long)(fault->value % 1000) * 1000000L };

	switch (fault->kind) {
	case FAULT_FAIL:
		call->answer = (int)fault->value;
		break;
	case FAULT_HANG:
		record(call, "hang");
		for (;;)
			pause();
	case FAULT_CRASH:
		record(call, "crash");
		signal(SIGSEGV, SIG_DFL);
		raise(SIGSEGV);
		break;
	case FAULT_DELAY:
		while (nanosleep(&wait, &wait) != 0)
			;
		break;
	}
}

/* A fault that names no function of this library would silently never happen. */
static bool faults_are_real(void)
{
	static const char *const SUFFIXES[] = { "", "_v2", "_v3", "WithFlags" };
	Dl_info here;
	void *self = dladdr((void *)(uintptr_t)&faults_are_real, &here) ? dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD) : NULL;
	bool real = true;

	for (unsigned i = 0; self != NULL && i < machine.fault_count; i++) {
		const char *function = machine.faults[i].function;
		bool found = strcmp(function, "*") == 0;
		char name[128];

		for (unsigned s = 0; !found && s < sizeof SUFFIXES / sizeof *SUFFIXES; s++) {
			snprintf(name, sizeof name, "%.*s%s", (int)stem(function), function, SUFFIXES[s]);
			found = dlsym(self, name) != NULL;
		}
		if (!found) {
			fprintf(stderr, "nvml stand-in: a fault names %s, which is no function of this library\n", function);
			real = false;
		}
	}
	if (self)
		dlclose(self);
	return real;
}

/* Only the log shows them. */
static void describe(struct call *call, const char *format, va_list list)
{
	size_t size = sizeof call->arguments;
	int length = 0;

	if (call->gpu != NO_GPU)
		length = snprintf(call->arguments, size, call->mig < 0 ? "gpu=%d" : "gpu=%d mig=%d", call->gpu, call->mig);
	vsnprintf(call->arguments + length + (length > 0), size - (size_t)length - (length > 0), format, list);
	if (length > 0 && call->arguments[length + 1] != '\0')
		call->arguments[length] = ' ';
}

struct call call_begin(const char *name, int gpu, int mig, bool needs_init, const char *format, ...)
{
	struct call call = { .name = name, .gpu = gpu, .mig = mig, .answer = GO_ON };
	struct fault due[MAX_FAULTS];
	unsigned count = 0;
	va_list list;

	pthread_mutex_lock(&lock);
	if (init_count == 0 && needs_init)
		call.answer = NVML_ERROR_UNINITIALIZED;
	else if (init_count == 0 ? !machine_load() || !faults_are_real() : !machine_refresh())
		call.answer = NVML_ERROR_UNKNOWN;
	if (*machine.log != '\0') {
		va_start(list, format);
		describe(&call, format, list);
		va_end(list);
	}
	if (call.answer != GO_ON)
		return call;
	for (unsigned i = 0; i < machine.fault_count; i++) {
		struct fault *fault = &machine.faults[i];

		if (concerns(fault, &call) && (fault->call == 0 || ++fault->seen == fault->call))
			due[count++] = *fault;
	}
	pthread_mutex_unlock(&lock);            /* a call that hangs or waits must not stop the others */
	for (unsigned i = 0; i < count; i++)
		meet(&due[i], &call);
	pthread_mutex_lock(&lock);
	return call;
}

int call_end(struct call *call, int code)
{
	char outcome[16];

	snprintf(outcome, sizeof outcome, "%d", code);
	record(call, outcome);
	pthread_mutex_unlock(&lock);
	return code;
}

/* The GPU whose memory the handle points into; handles of its MIG devices do, too. */
static struct gpu *gpu_around(nvmlDevice_t device)
{
	struct gpu *gpus = machine.gpus, *gpu = device;

	if (gpu < gpus || gpu >= gpus + machine.gpu_count)
		return NULL;
	return gpus + ((char *)device - (char *)gpus) / (long)sizeof *gpu;
}

struct gpu *gpu_of(nvmlDevice_t device)
{
	struct gpu *gpu = gpu_around(device);

	return device == gpu || mig_of(device) ? gpu : NULL;
}

struct mig_device *mig_of(nvmlDevice_t device)
{
	struct gpu *around = gpu_around(device);
	struct mig_device *mig = around ? around->migs : NULL;

	if (device == around)
		return NULL;
	for (; mig && mig < around->migs + MAX_MIG; mig++)
		if (device == &mig->as_device)
			return mig->present ? mig : NULL;
	return NULL;
}

int gpu_number(nvmlDevice_t device)
{
	struct gpu *gpu = gpu_of(device);

	return gpu ? (int)(gpu - machine.gpus) : NO_GPU;
}

int mig_number(nvmlDevice_t device)
{
	struct mig_device *mig = mig_of(device);

	return mig ? (int)(mig - machine.gpus[gpu_number(device)].migs) : -1;
}
