"""Search among the best checkpoints for a data set with transformers' Trainer and Optuna.

python examples/transformers_search.py --data AI-Lab-Makerere/beans --trials 10 --output_dir out
"""

import argparse

from datasets import load_dataset
from transformers import Trainer, TrainingArguments, pipeline

from t2v_hub import AutoSelector
from t2v_hub_integrations.transformers import accuracy, checkpoint_search


def main() -> None:
    """Search, keep the best model, and try it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="data set on the Hub with labelled images")
    parser.add_argument("--eval_split", default="test")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--output_dir", default="out")
    options = parser.parse_args()

    train = load_dataset(options.data, split="train")
    test = load_dataset(options.data, split=options.eval_split)
    search = checkpoint_search(
        AutoSelector.from_task(train),
        train,
        top_k=20,
        n_trials=options.trials,
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)},
    )
    trainer = Trainer(
        args=TrainingArguments(
            options.output_dir,
            num_train_epochs=options.epochs,
            eval_strategy="epoch",
            save_strategy="epoch",
            remove_unused_columns=False,
            report_to="none",
        ),
        model_init=search.model_init,
        data_collator=search.data_collator,
        compute_metrics=accuracy,
        train_dataset=train,
        eval_dataset=test,
    )
    best = search.best_model(trainer, trainer.hyperparameter_search(**search.search_kwargs))
    trainer.save_model()
    classify = pipeline("image-classification", model=best.model, image_processor=best.image_processor)
    print(f"best: {best.checkpoint} with {dict(best.hyperparameters)}, objective {best.objective:.3f}")
    print(f"accuracy now: {trainer.evaluate()['eval_accuracy']:.3f}")
    print(f"first test image: {classify(test[0]['image'])[0]}")


if __name__ == "__main__":
    main()
