/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of NVML's binary interface that the stand-in answers: return codes, constants and structures, written
 * from the layouts that nvidia-ml-py declares. tests/guest_cdi/test_nvml_mock.py compares every size with that module.
 */
#ifndef NVML_STANDIN_ABI_H
#define NVML_STANDIN_ABI_H

#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum {
	NVML_SUCCESS = 0,
	NVML_ERROR_UNINITIALIZED = 1,
	NVML_ERROR_INVALID_ARGUMENT = 2,
	NVML_ERROR_NOT_SUPPORTED = 3,
	NVML_ERROR_NO_PERMISSION = 4,
	NVML_ERROR_NOT_FOUND = 6,
	NVML_ERROR_INSUFFICIENT_SIZE = 7,
	NVML_ERROR_DRIVER_NOT_LOADED = 9,
	NVML_ERROR_RESET_REQUIRED = 16,
	NVML_ERROR_IN_USE = 19,
	NVML_ERROR_INSUFFICIENT_RESOURCES = 23,
	NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
	NVML_ERROR_INVALID_STATE = 29,
	NVML_ERROR_UNKNOWN = 999,
};

enum { MAX_LINKS = 18, NVLINK_SWITCH = 2 };
enum { P2P_OK = 0, P2P_NOT_SUPPORTED = 5, P2P_NVLINK = 2, P2P_CAPABILITIES = 6 };
enum { TOPOLOGY_HOST_BRIDGE = 30, FABRIC_COMPLETED = 3 };
#define NVML_KEY_ROTATION_V1 0x1000010
struct nvml_key_rotation {
	unsigned version;
	unsigned long long advantage;
};

enum { ECC_CORRECTED, ECC_UNCORRECTED, ECC_COUNT };
enum { ECC_VOLATILE, ECC_AGGREGATE, ECC_COUNTERS };
struct utilization { unsigned gpu, memory; };

enum { CLOCK_GRAPHICS, CLOCK_SM, CLOCK_MEM, CLOCK_VIDEO, CLOCK_COUNT };

/* The version word of a structure: its size and its number, as NVML_STRUCT_VERSION composes it. */
#define STRUCT_VERSION(type, number) ((unsigned)(sizeof(type) | ((unsigned)(number) << 24)))

typedef void *nvmlDevice_t;
typedef void *nvmlGpuInstance_t;
typedef void *nvmlComputeInstance_t;

struct pci_info {
	char bus_id_legacy[16];
	unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
	char bus_id[32];
};

struct memory_info { unsigned long long total, free, used; };
struct memory_info_v2 { unsigned version; unsigned long long total, reserved, free, used; };

struct cc_state { unsigned environment, feature, devtools; };
struct cc_settings { unsigned version, environment, feature, devtools, multigpu; };
struct cc_capabilities { unsigned cpu, gpus; };
struct cc_memory { unsigned long long protected_kib, unprotected_kib; };
struct cc_certificate { unsigned chain_size, attestation_size; uint8_t chain[0x1000], attestation[0x1400]; };

struct fabric_info { uint8_t cluster[16]; unsigned status; uint32_t clique; unsigned state; };
struct fabric_info_v2 { unsigned version; uint8_t cluster[16]; unsigned status; uint32_t clique; unsigned state; uint32_t health; };
struct fabric_info_v3 {
	unsigned version; uint8_t cluster[16]; unsigned status; uint32_t clique; unsigned state; uint32_t health;
	uint8_t summary;
};

struct placement { unsigned start, size; };

struct gi_profile_info {
	unsigned id, p2p, slices, instances, sm, copy, decoders, encoders, jpeg, ofa;
	unsigned long long memory_mb;
};
struct gi_profile_info_v2 {
	unsigned version, id, p2p, slices, instances, sm, copy, decoders, encoders, jpeg, ofa;
	unsigned long long memory_mb;
	char name[96];
};
struct gi_info { nvmlDevice_t device; unsigned id, profile_id; struct placement placement; };

struct ci_profile_info { unsigned id, slices, instances, sm, copy, decoders, encoders, jpeg, ofa; };
struct ci_profile_info_v2 {
	unsigned version, id, slices, instances, sm, copy, decoders, encoders, jpeg, ofa;
	char name[96];
};
struct ci_info {
	nvmlDevice_t device; nvmlGpuInstance_t gpu_instance; unsigned id, profile_id; struct placement placement;
};

struct device_attributes {
	unsigned sm, copy, decoders, encoders, jpeg, ofa, gi_slices, ci_slices;
	unsigned long long memory_mb;
};

#endif
