// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Module parameters and how /proc/driver/nvidia/params prints them. As in NVIDIA's module they have no file in
 * /sys/module/nvidia/parameters: whoever wants a value reads params.
 */
#include "nv.h"

#include <linux/module.h>

/* name, default; exactly those of 550.163.01, in the order in which its params prints them */
#define NUMBERS(X) \
	X(ResmanDebugLevel, ~0) \
	X(RmLogonRC, 1) \
	X(ModifyDeviceFiles, 1) \
	X(DeviceFileUID, 0) \
	X(DeviceFileGID, 0) \
	X(DeviceFileMode, 0666) \
	X(InitializeSystemMemoryAllocations, 1) \
	X(UsePageAttributeTable, ~0) \
	X(EnableMSI, 1) \
	X(EnablePCIeGen3, 0) \
	X(MemoryPoolSize, 0) \
	X(KMallocHeapMaxSize, 0) \
	X(VMallocHeapMaxSize, 0) \
	X(IgnoreMMIOCheck, 0) \
	X(TCEBypassMode, 0) \
	X(EnableStreamMemOPs, 0) \
	X(EnableUserNUMAManagement, 1) \
	X(NvLinkDisable, 0) \
	X(RmProfilingAdminOnly, 1) \
	X(PreserveVideoMemoryAllocations, 0) \
	X(EnableS0ixPowerManagement, 0) \
	X(S0ixPowerManagementVideoMemoryThreshold, 256) \
	X(DynamicPowerManagement, 3) \
	X(DynamicPowerManagementVideoMemoryThreshold, 200) \
	X(RegisterPCIDriver, 1) \
	X(EnablePCIERelaxedOrderingMode, 0) \
	X(EnableResizableBar, 0) \
	X(EnableGpuFirmware, 18) \
	X(EnableGpuFirmwareLogs, 2) \
	X(EnableDbgBreakpoint, 0) \
	X(OpenRmEnableUnsupportedGpus, 1) \
	X(DmaRemapPeerMmio, 1) \
	X(ImexChannelCount, 2048)

#define TEXTS(X) \
	X(RegistryDwords) \
	X(RegistryDwordsPerDevice) \
	X(RmMsg) \
	X(GpuBlacklist) \
	X(TemporaryFilePath) \
	X(ExcludedGpus)

#define DEFINE_NUMBER(name, value) int NVreg_##name = value; module_param(NVreg_##name, int, 0);
#define DEFINE_TEXT(name) static char *NVreg_##name; module_param(NVreg_##name, charp, 0);

NUMBERS(DEFINE_NUMBER)
TEXTS(DEFINE_TEXT)

void nv_show_params(struct seq_file *out)
{
#define SHOW_NUMBER(name, value) seq_printf(out, #name ": %u\n", NVreg_##name);
#define SHOW_TEXT(name) seq_printf(out, #name ": \"%s\"\n", NVreg_##name ?: "");
	NUMBERS(SHOW_NUMBER)
	TEXTS(SHOW_TEXT)
}

void nv_show_registry(struct seq_file *out)
{
	seq_puts(out, "Binary: \"\"\n");
}
