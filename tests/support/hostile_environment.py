"""Environments that users' shells and clusters' jobs have."""

#: Each of these changed a result, or made a job wait for others or fail, or could have.
HOSTILE = {
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "7",
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_TORCH_DEVICE": "meta",
    "FSDP_VERSION": "2",
    "FSDP_OFFLOAD_PARAMS": "true",
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "nowhere.invalid",
    "MASTER_PORT": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "PMI_SIZE": "2",
    "PMI_RANK": "1",
    "PMIX_RANK": "1",
    "NVIDIA_TF32_OVERRIDE": "1",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_DEFAULT_FPMATH_MODE": "ANY",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MATPLOTLIBRC": "/nowhere",
}

#: What jobs need to run at all.
CLUSTER = {
    "NCCL_DEBUG": "WARN",
    "NCCL_SOCKET_IFNAME": "lo",
    "HTTPS_PROXY": "",
    "NO_PROXY": "localhost",
    "SSL_CERT_DIR": "/etc/ssl/certs",
    "LD_LIBRARY_PATH": "",
    "SLURM_CPU_BIND": "none",
    "MODULEPATH": "/usr/share/modules",
    "TRITON_CACHE_DIR": "/tmp/triton",
    "CUDA_VISIBLE_DEVICES": "",
    "JUDGE_KEY": "key",
}
