/* SPDX-License-Identifier: Apache-2.0 */
/* What every entry point does first and last: meet its faults, be counted in the log, hold the lock in between. */
#ifndef NVML_STANDIN_CALLS_H
#define NVML_STANDIN_CALLS_H

#include <stdarg.h>

#include "machine.h"

enum { GO_ON = -1, NO_GPU = -1 };

struct call {
	const char *name;
	int gpu, mig;
	int answer;                             /* an NVML code that ends the call here, or GO_ON */
	char arguments[160];
};

struct call call_begin(const char *name, int gpu, int mig, bool needs_init, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
int call_end(struct call *call, int code);

/* Handles to what they mean; NULL where the handle is not one of ours. */
struct gpu *gpu_of(nvmlDevice_t device);                 /* the GPU itself or the parent of a MIG device */
struct mig_device *mig_of(nvmlDevice_t device);          /* NULL for a whole GPU */
int gpu_number(nvmlDevice_t device);
int mig_number(nvmlDevice_t device);

extern unsigned init_count;

/* An entry point: `CALL(...)` opens it, each way out is `DONE(code)`. */
#define CALL(gpu, mig, ...) \
	struct call call = call_begin(__func__, gpu, mig, true, __VA_ARGS__); \
	if (call.answer != GO_ON) return call_end(&call, call.answer)
#define DEVICE_CALL(handle, ...) \
	CALL(gpu_number(handle), mig_number(handle), __VA_ARGS__); \
	struct gpu *gpu = gpu_of(handle); \
	if (gpu == NULL) DONE(NVML_ERROR_INVALID_ARGUMENT)
#define DONE(code) return call_end(&call, code)
#define NEED(condition, code) do { if (!(condition)) DONE(code); } while (0)

#endif
