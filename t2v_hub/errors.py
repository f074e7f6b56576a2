"""Every exception and warning that t2v_hub raises.

::

    T2VError
    ├── SettingsError (ValueError)            an argument or option that cannot work
    │   └── SampleSizeError                   max_samples smaller than the number of classes
    ├── DataError (ValueError)                something about a labelled data set
    │   ├── DataNotFoundError (LookupError)   no such file, folder or data set, or out of reach
    │   ├── ColumnError (LookupError)         image or label column absent or ambiguous
    │   ├── SplitError (LookupError)          which split is meant is not said, or it is absent
    │   ├── LabelError                        labels missing, of one class only, or not labels
    │   │   └── ClassSizeError                a class with a single image
    │   └── ImageError                        too many images that cannot be decoded
    ├── ManifestError (ValueError)            a table of tasks that cannot be used
    ├── ProbeError (ValueError)               something about a network
    │   ├── ProbeNotFoundError (LookupError)  no such file, folder or repository
    │   │   └── ProbeUnreachableError         the Hub did not answer; later it may
    │   ├── HeadNotFoundError (LookupError)   no classification head could be found
    │   ├── WeightsError                      keys do not fit, NaN or infinite values
    │   └── ProbeOutputError                  features that are not finite or not a vector
    ├── EmbeddingError (ValueError)           something about embeddings
    │   ├── EmbeddingMismatchError            two that were not measured in one space
    │   └── EmbeddingFileError                truncated, tampered with, or no embedding file
    ├── CatalogError (ValueError)             something about a catalog of candidates
    │   ├── CandidateNotFoundError (LookupError)
    │   ├── CatalogFileError                  a catalog on disk that cannot be read
    │   ├── EmptyCatalogError                 no candidate to rank
    │   └── ResultsError                      measured errors that cannot be used, or too few of them
    ├── CheckpointError (ValueError)          a candidate that does not load
    ├── ScoreError (ValueError)               a score of a plug-in that fails, or is no finite number
    ├── CardError (ValueError)                something about a model or data set card
    │   ├── CardEntryError                    an entry that cannot be used, or not be written
    │   ├── CardTextError                     a README that cannot be changed without harm
    │   ├── CardSizeError                     more than a card may hold
    │   └── OptedOutError                     ``task2vec: false``: its owner wants no embeddings there
    ├── HubError (OSError)                    the Hub refused, failed or is out of reach
    │   ├── HubNotFoundError (LookupError)    no such repository or revision, or none that may be seen
    │   ├── HubAccessError (PermissionError)  no token, no right to write, gated, disabled
    │   ├── HubConflictError                  others kept changing the card, or the name is taken
    │   ├── HubRejectedError                  the Hub does not take what was sent: invalid or too large
    │   ├── RateLimitError                    too many requests, for longer than we may wait
    │   └── HubUnreachableError (ConnectionError)  no connection, time-out, server error, offline mode
    ├── StorageError (OSError)                disk full, read-only, not permitted
    ├── InsufficientMemoryError (MemoryError) one image at a time still does not fit
    ├── WorkerError (RuntimeError)            work that another process could not do, or died of
    └── MissingDependencyError (ImportError)  an optional package is not installed

    T2VWarning (UserWarning)
    ├── SkippedImagesWarning                  images that could not be decoded were left out
    ├── SlowPathWarning                       layers without a fast kernel are measured one image at a time
    ├── SmallerBatchWarning                   the batch was halved after running out of memory
    ├── CacheWarning                          a damaged cache entry was ignored and measured again
    ├── FewImagesWarning                      too few images for a standard error that can be trusted
    ├── FewCandidatesWarning                  fewer candidates than were asked for
    ├── SkippedCheckpointsWarning             candidates that did not load were passed over
    ├── PlugInWarning                         a plug-in of another package does not work and is left out
    └── CardWarning                           an entry of a card was skipped, or a card grows large
"""


class T2VError(Exception):
    """Base of every exception that t2v_hub raises."""


class SettingsError(T2VError, ValueError):
    """An argument or option that cannot work."""


class SampleSizeError(SettingsError):
    """``max_samples`` is smaller than the number of classes."""


class DataError(T2VError, ValueError):
    """Something is wrong with a labelled data set."""


class DataNotFoundError(DataError, LookupError):
    """No such file, folder or data set on the Hub, or it is out of reach."""


class ColumnError(DataError, LookupError):
    """The image or label column is absent or ambiguous."""


class SplitError(DataError, LookupError):
    """The split is absent, or several exist and none was named."""


class LabelError(DataError):
    """Labels are missing, of one class only, or not labels at all."""


class ClassSizeError(LabelError):
    """A class has a single image."""


class ImageError(DataError):
    """Too many images cannot be decoded."""


class ManifestError(T2VError, ValueError):
    """A table of tasks cannot be used."""


class ProbeError(T2VError, ValueError):
    """Something is wrong with a network."""


class ProbeNotFoundError(ProbeError, LookupError):
    """No such file, folder or repository."""


class ProbeUnreachableError(ProbeNotFoundError):
    """A network is not on this machine, and the Hub did not answer; later it may."""


class HeadNotFoundError(ProbeError, LookupError):
    """The network has no classification head that could be found."""


class WeightsError(ProbeError):
    """Stored weights do not fit the network, or hold NaN or infinite values."""


class ProbeOutputError(ProbeError):
    """The network's features are not finite, or are not one vector per image."""


class EmbeddingError(T2VError, ValueError):
    """Something is wrong with an embedding."""


class EmbeddingMismatchError(EmbeddingError):
    """Two embeddings were not measured in the same space."""


class EmbeddingFileError(EmbeddingError):
    """A file is truncated, was tampered with, or is no embedding."""


class CatalogError(T2VError, ValueError):
    """Something is wrong with a catalog of candidates."""


class CandidateNotFoundError(CatalogError, LookupError):
    """The catalog has no such candidate."""


class CatalogFileError(CatalogError):
    """A catalog on disk cannot be read."""


class EmptyCatalogError(CatalogError):
    """There is no candidate to rank."""


class ResultsError(CatalogError):
    """Measured errors cannot be used, or are too few."""


class CheckpointError(T2VError, ValueError):
    """A candidate's weights do not load."""


class ScoreError(T2VError, ValueError):
    """A score of a plug-in fails on a checkpoint, or is no finite number."""


class CardError(T2VError, ValueError):
    """Something is wrong with a model or data set card."""


class CardEntryError(CardError):
    """An entry of a card cannot be used, or cannot be written."""


class CardTextError(CardError):
    """A README cannot be changed without harm to what others wrote."""


class CardSizeError(CardError):
    """More than a card may hold."""


class OptedOutError(CardError):
    """The card says ``task2vec: false``: its owner wants no embeddings there."""


class HubError(T2VError, OSError):
    """The Hub refused, failed or is out of reach."""


class HubNotFoundError(HubError, LookupError):
    """There is no such repository or revision, or none that may be seen."""


class HubAccessError(HubError, PermissionError):
    """Access is refused: no token, no right to write, gated or disabled."""


class HubConflictError(HubError):
    """Others kept changing the card meanwhile, or the name is taken."""


class HubRejectedError(HubError):
    """The Hub does not take what was sent: it is invalid or too large."""


class RateLimitError(HubError):
    """Too many requests, for longer than we may wait."""


class HubUnreachableError(HubError, ConnectionError):
    """No connection, a time-out, a server's error, or offline mode."""


class StorageError(T2VError, OSError):
    """The disk is full, read-only or closed to us."""


class InsufficientMemoryError(T2VError, MemoryError):
    """Even one image at a time does not fit into memory."""


class WorkerError(T2VError, RuntimeError):
    """A piece of work cannot be sent to another process, or its workers died again and again."""


class MissingDependencyError(T2VError, ImportError):
    """An optional package is not installed."""


class T2VWarning(UserWarning):
    """Base of every warning that t2v_hub gives."""


class SkippedImagesWarning(T2VWarning):
    """Images that could not be decoded were left out."""


class SlowPathWarning(T2VWarning):
    """Layers without a fast kernel are measured one image at a time."""


class SmallerBatchWarning(T2VWarning):
    """The batch was halved after running out of memory."""


class CacheWarning(T2VWarning):
    """A damaged cache entry was ignored and measured again."""


class FewImagesWarning(T2VWarning):
    """Classes have too few images in the sample for a standard error that can be trusted."""


class FewCandidatesWarning(T2VWarning):
    """A search gets fewer candidates than it asked for."""


class SkippedCheckpointsWarning(T2VWarning):
    """Candidates that did not load were passed over."""


class PlugInWarning(T2VWarning):
    """A plug-in of another package does not work, and is left out."""


class CardWarning(T2VWarning):
    """An entry of a card was skipped, or a card grows large."""
