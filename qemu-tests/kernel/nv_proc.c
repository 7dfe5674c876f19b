// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* /proc/driver/nvidia, in the driver's own layout and wording. */
#include "nv.h"

#include <linux/compiler.h>

static struct proc_dir_entry *nvidia, *gpus;

static int show_version(struct seq_file *out, void *unused)
{
	seq_printf(out, "NVRM version: %s\n", NV_ID);
	seq_printf(out, "GCC version:  gcc version %s\n", __VERSION__);
	return 0;
}

static int show_params(struct seq_file *out, void *unused)
{
	nv_show_params(out);
	return 0;
}

static int show_registry(struct seq_file *out, void *unused)
{
	nv_show_registry(out);
	return 0;
}

static int show_text(struct seq_file *out, void *unused)
{
	seq_puts(out, out->private);
	return 0;
}

static int show_information(struct seq_file *out, void *unused)
{
	struct nv_gpu *gpu = out->private;
	int dma_bits = gpu->known ? 52 : 36;	/* the real size is found at the first attach */

	seq_printf(out, "Model: \t\t %s\n", *gpu->model ? (char *)gpu->model : "NVIDIA Graphics Device");
	seq_printf(out, "IRQ:   \t\t %d\n", gpu->pdev->irq);
	seq_printf(out, "GPU UUID: \t %s\n", gpu->known ? gpu->uuid : "GPU-????????-????" "-????-????-????????????");
	seq_printf(out, "Video BIOS: \t %s\n", gpu->known && *gpu->vbios ? (char *)gpu->vbios : "??.??.??.??.??");
	seq_printf(out, "Bus Type: \t %s\n", pci_is_pcie(gpu->pdev) ? "PCIe" : "PCI");
	seq_printf(out, "DMA Size: \t %d bits\n", dma_bits);
	seq_printf(out, "DMA Mask: \t 0x%llx\n", DMA_BIT_MASK(dma_bits));
	seq_printf(out, "Bus Location: \t %s\n", pci_name(gpu->pdev));
	seq_printf(out, "Device Minor: \t %u\n", gpu->minor);
	seq_printf(out, "GPU Firmware: \t %s\n", gpu->known ? NV_VERSION : "N/A");
	seq_printf(out, "GPU Excluded:\t %s\n", "No");
	return 0;
}

/* Nothing is known of a GPU's power management before its first attach. */
static int show_power(struct seq_file *out, void *unused)
{
	struct nv_gpu *gpu = out->private;
	const char *support = gpu->known ? "Not Supported" : "?";

	seq_printf(out, "Runtime D3 status:          %s\n", gpu->known ? "Disabled by default" : "?");
	seq_printf(out, "Video Memory:               %s\n\n", gpu->known ? "Active" : "?");
	seq_puts(out, "GPU Hardware Support:\n");
	seq_printf(out, " Video Memory Self Refresh: %s\n", support);
	seq_printf(out, " Video Memory Off:          %s\n", support);
	return 0;
}

int nv_proc_add_gpu(struct nv_gpu *gpu)
{
	gpu->proc = proc_mkdir(pci_name(gpu->pdev), gpus);
	if (!gpu->proc)
		return -ENOMEM;
	proc_create_single_data("information", 0444, gpu->proc, show_information, gpu);
	proc_create_single_data("registry", 0644, gpu->proc, show_registry, gpu);
	proc_create_single_data("power", 0444, gpu->proc, show_power, gpu);
	return 0;
}

void nv_proc_remove_gpu(struct nv_gpu *gpu)
{
	proc_remove(gpu->proc);
}

int nv_proc_init(void)
{
	struct proc_dir_entry *folder;

	nvidia = proc_mkdir("driver/nvidia", NULL);
	if (!nvidia)
		return -ENOMEM;
	proc_create_single_data("params", 0444, nvidia, show_params, NULL);
	proc_create_single_data("registry", 0644, nvidia, show_registry, NULL);
	proc_create_single_data("suspend_depth", 0644, nvidia, show_text, "default modeset uvm\n");
	proc_create_single_data("suspend", 0644, nvidia, show_text, "suspend hibernate resume\n");
	folder = proc_mkdir("warnings", nvidia);
	proc_create_single_data("README", 0444, folder, show_text, "Warnings of the driver would appear in this folder.\n");
	folder = proc_mkdir("patches", nvidia);
	proc_create_single_data("README", 0444, folder, show_text, "Patches of the driver would be named in this folder.\n");
	proc_create_single_data("version", 0444, nvidia, show_version, NULL);
	gpus = proc_mkdir("gpus", nvidia);
	if (gpus && !nv_caps_init(nvidia))
		return 0;
	nv_proc_exit();
	return -ENOMEM;
}

void nv_proc_exit(void)
{
	nv_caps_exit();
	proc_remove(nvidia);
}
