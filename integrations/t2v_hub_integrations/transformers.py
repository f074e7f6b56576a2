"""transformers: a ranking inside `Trainer`, as the checkpoint to train or as the start of a search.

::

    search = checkpoint_search(AutoSelector.from_task(train), train, n_trials=20)
    trainer = Trainer(
        args=TrainingArguments("out", remove_unused_columns=False, eval_strategy="epoch"),
        model_init=search.model_init,
        data_collator=search.data_collator,
        compute_metrics=accuracy,
        train_dataset=train,
        eval_dataset=test,
    )
    best = search.best_model(trainer, trainer.hyperparameter_search(**search.search_kwargs))
    classify = pipeline("image-classification", model=best.model, image_processor=best.image_processor)
"""

from t2v_hub_integrations.dependency import missing

try:
    import transformers  # noqa: F401 - it alone may be absent, before anything below imports it
except ModuleNotFoundError as error:
    raise missing(error, "transformers") from error

from t2v_hub_integrations.transformers_best import BestModel
from t2v_hub_integrations.transformers_callback import Task2VecCallback
from t2v_hub_integrations.transformers_images import ImageCollator, accuracy
from t2v_hub_integrations.transformers_models import TrainableCheckpoint, load_for_trainer
from t2v_hub_integrations.transformers_search import CheckpointSearch, checkpoint_search

__all__ = [
    "BestModel",
    "CheckpointSearch",
    "ImageCollator",
    "Task2VecCallback",
    "TrainableCheckpoint",
    "accuracy",
    "checkpoint_search",
    "load_for_trainer",
]
