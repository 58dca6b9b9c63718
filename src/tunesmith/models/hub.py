"""The hub: fetches the files of a model that are data, and tells its many refusals apart."""

from __future__ import annotations

from pathlib import Path

from tunesmith.errors import ModelError

WANTED = ["*.safetensors", "*.json", "*.txt", "*.model"]
UNWANTED = ["onnx/*", "openvino/*", "original/*", "*.bin", "*.py"]


def fetch(name: str, revision: str | None = None) -> tuple[Path, str]:
    """The local folder of a hub repository, and its commit. Weights as safetensors, and text files; nothing else.

    `revision` is a commit, tag or branch; None takes the newest of the main branch.
    Raises ModelError, one clause without the name, saying why it cannot be had and what to do.
    """
    from huggingface_hub import constants, errors, snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    except errors.GatedRepoError:
        raise ModelError(
            "the repository is gated; ask for access on its page, then log in with: hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            "there is no such repository, or it is private; check the spelling, or log in with: hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"the repository has no revision {revision}; its history may have been rewritten") from None
    except errors.HFValidationError as error:
        raise ModelError(f"it is not a valid repository name ({_line(error)})") from None
    except errors.LocalEntryNotFoundError:
        if constants.is_offline_mode():
            raise ModelError(
                "it is not in the local cache, and HF_HUB_OFFLINE forbids to fetch it; "
                "unset HF_HUB_OFFLINE, or fetch it once on a machine with a network"
            ) from None
        raise ModelError(
            f"it is not in the local cache, and {constants.ENDPOINT} cannot be reached; "
            "check the network, set HF_ENDPOINT to a mirror, or give a local folder"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise ModelError("HF_HUB_OFFLINE forbids to fetch it; unset it, or give a local folder") from None
    except errors.HfHubHTTPError as error:
        raise ModelError(f"{constants.ENDPOINT} answered with an error ({_line(error)}); try again later") from None
    except OSError as error:
        raise ModelError(f"the files cannot be had ({_line(error)}); check network and disk") from None
    return folder, folder.name


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
