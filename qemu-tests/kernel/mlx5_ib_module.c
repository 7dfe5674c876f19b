// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * An emulated mlx5_ib.ko: each function of the emulated mlx5_core.ko becomes an RDMA device mlx5_<N> with one port, of
 * InfiniBand or RoCE by its class. The kernel's own ib_core, ib_uverbs and ib_umad are above it, so what shows in sysfs
 * and /dev is theirs: ports, GIDs, uverbs<N>, umad<N>, issm<N>. Queues can be made and hold nothing; no byte ever moves.
 */
#include "lab_mailbox.h"
#include "lab_mlx5.h"

#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/slab.h>
#include <rdma/ib_mad.h>
#include <rdma/ib_verbs.h>
#include <rdma/uverbs_ioctl.h>

enum { INFINIBAND_GIDS = 4, ROCE_GIDS = 8, LINK_UP = 5 };

struct lab_device {
	struct ib_device ib;
	struct lab_nic *nic;
};

struct lab_ucontext { struct ib_ucontext ib; };
struct lab_pd { struct ib_pd ib; };
struct lab_cq { struct ib_cq ib; };
struct lab_qp { struct ib_qp ib; };

static struct lab_nic *nic_of(struct ib_device *ib)
{
	return container_of(ib, struct lab_device, ib)->nic;
}

static bool is_ethernet(struct ib_device *ib)
{
	return nic_of(ib)->netdev;
}

static int query_device(struct ib_device *ib, struct ib_device_attr *attributes, struct ib_udata *udata)
{
	memset(attributes, 0, sizeof(*attributes));
	attributes->vendor_id = nic_of(ib)->pdev->vendor;
	attributes->vendor_part_id = nic_of(ib)->pdev->device;
	attributes->kernel_cap_flags = IBK_LOCAL_DMA_LKEY;
	attributes->max_qp = attributes->max_cq = attributes->max_pd = attributes->max_mr = 1 << 10;
	attributes->max_qp_wr = attributes->max_cqe = 1 << 15;
	attributes->max_send_sge = attributes->max_recv_sge = 16;
	attributes->max_pkeys = 1;
	memcpy(&attributes->sys_image_guid, nic_of(ib)->guid, sizeof(attributes->sys_image_guid));
	return 0;
}

static int query_port(struct ib_device *ib, u32 number, struct ib_port_attr *attributes)
{
	struct lab_nic *nic = nic_of(ib);

	attributes->state = nic->state;
	attributes->phys_state = nic->state == IB_PORT_ACTIVE ? LINK_UP : 3;
	attributes->max_mtu = attributes->active_mtu = IB_MTU_4096;
	attributes->gid_tbl_len = is_ethernet(ib) ? ROCE_GIDS : INFINIBAND_GIDS;
	attributes->pkey_tbl_len = 1;
	attributes->port_cap_flags = nic->mask;
	attributes->max_msg_sz = 1 << 30;
	attributes->active_width = IB_WIDTH_4X;
	attributes->active_speed = IB_SPEED_NDR;
	return 0;
}

static int get_port_immutable(struct ib_device *ib, u32 number, struct ib_port_immutable *immutable)
{
	struct ib_port_attr attributes = {};

	immutable->core_cap_flags = is_ethernet(ib) ?
		RDMA_CORE_PORT_IBA_ROCE | RDMA_CORE_PORT_IBA_ROCE_UDP_ENCAP :
		RDMA_CORE_CAP_PROT_IB | RDMA_CORE_CAP_IB_MAD | RDMA_CORE_CAP_IB_SMI;
	if (is_ethernet(ib))
		immutable->core_cap_flags &= ~RDMA_CORE_CAP_IB_CM;
	query_port(ib, number, &attributes);
	immutable->gid_tbl_len = attributes.gid_tbl_len;
	immutable->pkey_tbl_len = attributes.pkey_tbl_len;
	immutable->max_mad_size = IB_MGMT_MAD_SIZE;
	return 0;
}

static enum rdma_link_layer get_link_layer(struct ib_device *ib, u32 number)
{
	return is_ethernet(ib) ? IB_LINK_LAYER_ETHERNET : IB_LINK_LAYER_INFINIBAND;
}

/* Of InfiniBand ports. The kernel makes those of Ethernet from the network device. */
static int query_gid(struct ib_device *ib, u32 number, int index, union ib_gid *gid)
{
	memset(gid, 0, sizeof(*gid));
	if (index || nic_of(ib)->faults & LAB_FAULT_GID)
		return 0;
	gid->raw[0] = 0xfe;
	gid->raw[1] = 0x80;
	memcpy(gid->raw + 8, nic_of(ib)->guid, 8);
	return 0;
}

static int change_gid(const struct ib_gid_attr *attributes, void **context)
{
	return 0;
}

static int query_pkey(struct ib_device *ib, u32 number, u16 index, u16 *pkey)
{
	*pkey = 0xffff;
	return 0;
}

static int alloc_ucontext(struct ib_ucontext *context, struct ib_udata *udata)
{
	return 0;
}

static void dealloc_ucontext(struct ib_ucontext *context)
{
}

static int alloc_pd(struct ib_pd *pd, struct ib_udata *udata)
{
	return 0;
}

static int dealloc_pd(struct ib_pd *pd, struct ib_udata *udata)
{
	return 0;
}

static int create_cq(struct ib_cq *cq, const struct ib_cq_init_attr *attributes, struct uverbs_attr_bundle *bundle)
{
	cq->cqe = attributes->cqe;
	return 0;
}

static int destroy_cq(struct ib_cq *cq, struct ib_udata *udata)
{
	return 0;
}

static int poll_cq(struct ib_cq *cq, int entries, struct ib_wc *wc)
{
	return 0;
}

static int req_notify_cq(struct ib_cq *cq, enum ib_cq_notify_flags flags)
{
	return 0;
}

static int create_qp(struct ib_qp *qp, struct ib_qp_init_attr *attributes, struct ib_udata *udata)
{
	return udata ? -EOPNOTSUPP : 0;
}

static int modify_qp(struct ib_qp *qp, struct ib_qp_attr *attributes, int mask, struct ib_udata *udata)
{
	return 0;
}

static int destroy_qp(struct ib_qp *qp, struct ib_udata *udata)
{
	return 0;
}

static int post_send(struct ib_qp *qp, const struct ib_send_wr *wr, const struct ib_send_wr **bad)
{
	*bad = wr;
	return -EIO;
}

static int post_recv(struct ib_qp *qp, const struct ib_recv_wr *wr, const struct ib_recv_wr **bad)
{
	return 0;
}

static struct ib_mr *get_dma_mr(struct ib_pd *pd, int access)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static struct ib_mr *reg_user_mr(struct ib_pd *pd, u64 start, u64 length, u64 address, int access,
				 struct ib_udata *udata)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static int dereg_mr(struct ib_mr *mr, struct ib_udata *udata)
{
	return 0;
}

static const struct ib_device_ops ops = {
	.owner = THIS_MODULE,
	.driver_id = RDMA_DRIVER_MLX5,
	.uverbs_abi_ver = 1,
	.query_device = query_device, .query_port = query_port, .get_port_immutable = get_port_immutable,
	.get_link_layer = get_link_layer, .query_gid = query_gid, .add_gid = change_gid, .del_gid = change_gid,
	.query_pkey = query_pkey, .alloc_ucontext = alloc_ucontext, .dealloc_ucontext = dealloc_ucontext,
	.alloc_pd = alloc_pd, .dealloc_pd = dealloc_pd, .create_cq = create_cq, .destroy_cq = destroy_cq,
	.poll_cq = poll_cq, .req_notify_cq = req_notify_cq, .create_qp = create_qp, .modify_qp = modify_qp,
	.destroy_qp = destroy_qp, .post_send = post_send, .post_recv = post_recv, .get_dma_mr = get_dma_mr,
	.reg_user_mr = reg_user_mr, .dereg_mr = dereg_mr,
	INIT_RDMA_OBJ_SIZE(ib_ucontext, lab_ucontext, ib), INIT_RDMA_OBJ_SIZE(ib_pd, lab_pd, ib),
	INIT_RDMA_OBJ_SIZE(ib_cq, lab_cq, ib), INIT_RDMA_OBJ_SIZE(ib_qp, lab_qp, ib),
};

static int probe(struct auxiliary_device *aux, const struct auxiliary_device_id *id)
{
	struct lab_nic *nic = lab_nic_of(aux);
	struct lab_device *device = ib_alloc_device(lab_device, ib);
	int rc = 0;

	if (!device)
		return -ENOMEM;
	device->nic = nic;
	device->ib.phys_port_cnt = 1;
	device->ib.num_comp_vectors = 1;
	device->ib.node_type = RDMA_NODE_IB_CA;
	device->ib.dev.parent = &nic->pdev->dev;
	memcpy(&device->ib.node_guid, nic->guid, sizeof(device->ib.node_guid));
	ib_set_device_ops(&device->ib, &ops);
	if (nic->netdev && !(nic->faults & LAB_FAULT_GID))
		rc = ib_device_set_netdev(&device->ib, nic->netdev, 1);
	rc = rc ?: ib_register_device(&device->ib, "mlx5_%d", &nic->pdev->dev);
	if (rc)
		ib_dealloc_device(&device->ib);
	else
		auxiliary_set_drvdata(aux, device);
	return rc;
}

static void remove(struct auxiliary_device *aux)
{
	struct lab_device *device = auxiliary_get_drvdata(aux);

	ib_unregister_device(&device->ib);
	ib_dealloc_device(&device->ib);
}

static const struct auxiliary_device_id ids[] = { { .name = "mlx5_core.rdma" }, {} };
MODULE_DEVICE_TABLE(auxiliary, ids);

static struct auxiliary_driver mlx5_ib = { .name = "rdma", .id_table = ids, .probe = probe, .remove = remove };
module_auxiliary_driver(mlx5_ib);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("emulated RDMA devices, for tests");
