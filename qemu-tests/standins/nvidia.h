// SPDX-License-Identifier: Apache-2.0
#ifndef LAB_NVIDIA_H
#define LAB_NVIDIA_H

#include <stdbool.h>
#include <stddef.h>

#define DRIVER_VERSION "550.163.01"

enum { GPUS_MAX = 64 };

struct gpu {
	char place[32];		/* 0000:40:00.0 */
	char model[64], uuid[64];
	int minor;
	long cc;		/* the mode the lab gave it; -1 when the driver does not tell */
	int fd;			/* -1 until it is opened */
};

/* nvidia_devices.c */
/* GPUs that the driver bound, by bus address; -1 when the driver is not loaded. */
int list_gpus(struct gpu *gpus);
int count_switches(void);
/* Whether this machine has an NVLink fabric, of either generation, and whether Fabric Manager has brought it up. */
bool has_fabric(void);
bool is_fabric_up(void);
void mark_fabric_up(void);
/* Makes the nodes that are missing, as NVIDIA's libraries do when they run as root and the driver allows it. */
void make_nodes(const struct gpu *gpus, int count);
/* Opens a GPU's node, which attaches it; afterwards its UUID is known. */
bool open_gpu(struct gpu *gpu);
/* Opens the control node and all GPUs, as NVML's initialisation does; how many of them could be opened. */
int open_all(struct gpu *gpus, int count);

/* nvidia_program.c */
extern const char *program;	/* the name this process was started by */
/* What may go wrong before a program has done anything: flood, slow, lie, fail, hang. */
void suffer_early_faults(void);
void stay_forever(void);	/* with the faults that come later: crash, exit */
/* Both to standard error and to syslog, as a failing tool would. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A listening Unix socket; false with errno. */
bool listen_at(const char *path);
bool listen_on_loopback(int port);

/* Value that follows an option, or behind its `=`; NULL when it is not given. */
const char *option(int argc, char **argv, const char *name);
bool has_option(int argc, char **argv, const char *name);

/* What nvidia.c chooses from. */
int persistenced_main(int argc, char **argv);
int fabricmanager_main(int argc, char **argv);
int nvlsm_main(int argc, char **argv);
int hostengine_main(int argc, char **argv);
int exporter_main(int argc, char **argv);
int smi_main(int argc, char **argv);
int ctk_main(int argc, char **argv);

#endif
