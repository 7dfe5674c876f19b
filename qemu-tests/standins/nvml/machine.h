/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The described machine. One description file (README.md has its grammar) and, where it names one, a state file in the
 * same grammar that holds what calls have changed; both are read again when either changes on disk.
 */
#ifndef NVML_STANDIN_MACHINE_H
#define NVML_STANDIN_MACHINE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "abi.h"

enum { MAX_GPUS = 32, MAX_MIG = 16, MAX_FAULTS = 64, MAX_MEM_CLOCKS = 8, MIG_SLICES = 8, MAX_TABLE = 32 };
enum { MIG_OFF = 0, MIG_ON = 1, MIG_UNSUPPORTED = 2 };

struct gpu_instance {
	bool present;
	unsigned id;
	unsigned profile;                       /* NVML_GPU_INSTANCE_PROFILE_* */
	struct placement placement;
};

/* A compute instance is a MIG device and the reverse; the two members are what its two handles point at. */
struct mig_device {
	char as_device, as_instance;
	bool present;
	unsigned gi, ci, profile;               /* profile: NVML_COMPUTE_INSTANCE_PROFILE_* */
	char uuid[80];
};

struct gpu {
	char uuid[80], name[96], serial[30], part[80], vbios[32];
	unsigned minor, domain, bus, device, pci_device_id, pci_subsystem_id;
	unsigned long long memory;
	unsigned cc;                            /* does this GPU protect its memory */
	unsigned persistence;
	unsigned graphics_mhz[2], idle_mhz, step_mhz;
	unsigned memory_mhz[MAX_MEM_CLOCKS], memory_clocks;
	unsigned locked_graphics[2], locked_memory[2];
	unsigned power_mw[2], power_default_mw, power_limit_mw;
	unsigned draw_mw, celsius, busy[2], ecc[2];     /* what is measured now; ecc: corrected, uncorrected */
	unsigned long long used;                        /* bytes of memory */
	unsigned capability[2];
	unsigned fabric, fabric_status, fabric_clique, fabric_health, fabric_summary;
	uint8_t fabric_cluster[16];
	unsigned nvlinks, nvlinks_down, p2p;    /* all to switches, the last ones down; peer access over PCIe, a status of NVML's */
	unsigned mig, mig_pending, mig_needs_reset, mig_gb, mig_family;
	struct gpu_instance instances[MAX_MIG];
	struct mig_device migs[MAX_MIG];
	int node_fd;
	bool attached;
};

enum fault_kind { FAULT_FAIL, FAULT_HANG, FAULT_CRASH, FAULT_DELAY };
struct fault {
	enum fault_kind kind;
	char function[80];                      /* "*" for every call that is about a GPU */
	int gpu, mig;                           /* -1: any */
	unsigned call, seen;                    /* call: only the n-th match, 0 for each */
	unsigned value;                         /* return code, or milliseconds */
};

struct machine {
	char driver[80], nvml[80];
	unsigned cuda;
	bool cc_supported;
	unsigned environment, feature, devtools, multigpu, cpu, gpus_capable, ready;
	unsigned long long key_rotation;
	unsigned table;                         /* MiB of zeros that init writes */
	char nodes[PATH_MAX], log[PATH_MAX], state[PATH_MAX], door[PATH_MAX];
	unsigned gpu_count;
	struct gpu gpus[MAX_GPUS];
	unsigned fault_count;
	struct fault faults[MAX_FAULTS];
};

extern struct machine machine;                  /* state.c */

/* machine.c */
bool machine_load(void);                        /* description, then state; false and a line on stderr when unusable */
bool machine_refresh(void);                     /* the same, only where a file changed since */
void machine_save(void);                        /* what calls have changed, to state file and door where they are named */

/* parse.c: one line of the grammar; NULL, or what is wrong with it. */
const char *parse_line(char *line, const char *directory);

/* mig_tables.c: profiles are computed from the GPU's memory and family. */
enum { GI_PROFILES = 18, CI_PROFILES = 9 };
struct mig_profile {
	unsigned gi_enum, id, slices, size, instances, sm, copy, decoders, jpeg, ofa;
	const char *suffix;                     /* "", "+me", "+gfx" */
};
const struct mig_profile *mig_profile_by_enum(const struct gpu *gpu, unsigned gi_enum);
const struct mig_profile *mig_profile_by_id(const struct gpu *gpu, unsigned id);
const struct mig_profile *mig_profile_by_name(const struct gpu *gpu, const char *name);
void mig_profile_name(const struct gpu *gpu, const struct mig_profile *profile, char *name, unsigned long size);
struct gpu_instance *mig_place(struct gpu *gpu, const struct mig_profile *profile, int start);
struct mig_device *mig_add(struct gpu *gpu, const struct gpu_instance *gi, int index, int ci, unsigned slices);
unsigned ci_slices(unsigned profile);            /* of NVML_COMPUTE_INSTANCE_PROFILE_*; 0 for one that is none */
unsigned mig_limit(const struct gpu *gpu);       /* how many MIG devices the GPU can be cut into */
bool mig_fits(const struct gpu *gpu, const struct mig_profile *profile, unsigned start);
unsigned mig_memory_used(const struct gpu *gpu);         /* memory slices as bits */
unsigned long long mig_memory_mb(const struct gpu *gpu, const struct mig_profile *profile);
unsigned mig_slices_used(const struct gpu *gpu, unsigned gi);
unsigned gpu_index(const struct gpu *gpu);

#endif
