"""smallq-deploy: build, install, prove and roll back the SmallqFlashAttention operator on Ascend machines."""

__version__ = "0.1.0"
