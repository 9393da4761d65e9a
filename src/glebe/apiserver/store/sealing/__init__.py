"""Encryption at rest: what is stored of chosen resources is sealed with keys from a file."""

from glebe.apiserver.store.sealing.config import EncryptionConfigError, load_encryption_config
from glebe.apiserver.store.sealing.sealing import SEALED, Sealing, SealingError, refuse_sealed

__all__ = ["SEALED", "EncryptionConfigError", "Sealing", "SealingError", "load_encryption_config", "refuse_sealed"]
