"""Fine-tune an image classifier; ``--model_name_or_path auto`` picks the checkpoint by the data.

As transformers' run_image_classification.py, with its arguments of TrainingArguments and these few:

python examples/run_image_classification_auto.py --model_name_or_path auto \
    --dataset_name AI-Lab-Makerere/beans --output_dir out --do_train --do_eval --push_to_hub
"""

from dataclasses import dataclass, field

from datasets import load_dataset
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)

from t2v_hub import AutoSelector, ProbeNetwork
from t2v_hub.data import load
from t2v_hub_integrations.transformers import (
    ImageCollator,
    Task2VecCallback,
    TrainableCheckpoint,
    accuracy,
    load_for_trainer,
)


@dataclass
class Arguments:
    """What to train on what."""

    dataset_name: str = field(metadata={"help": "Data set on the Hub with labelled images."})
    model_name_or_path: str = field(default="auto", metadata={"help": "A checkpoint, or auto."})
    eval_split: str = field(default="test", metadata={"help": "Split to evaluate on."})
    top_k: int = field(default=10, metadata={"help": "How many candidates of the ranking to show."})


def main() -> None:
    """Choose, train, evaluate, and write the card."""
    arguments, training = HfArgumentParser((Arguments, TrainingArguments)).parse_args_into_dataclasses()
    training.remove_unused_columns = False  # the collator makes batches of images
    train = load_dataset(arguments.dataset_name, split="train")
    name, embedding = arguments.model_name_or_path, None
    if name == "auto":
        selector = AutoSelector.from_task(train)
        ranking, embedding = selector.rank(top_k=arguments.top_k), selector.task
        print(ranking)
        print(ranking.explain(0))
        found = load_for_trainer(ranking, train)
    else:
        model = AutoModelForImageClassification.from_pretrained(
            name, id2label=dict(enumerate(load(train).class_names)), ignore_mismatched_sizes=True
        )
        processor = AutoImageProcessor.from_pretrained(name)
        found = TrainableCheckpoint(name, model, processor, ProbeNetwork.load(name).preprocessing)
    print(f"fine-tuning {found.id}")

    trainer = Trainer(
        model=found.model,
        args=training,
        data_collator=ImageCollator.of(train, preprocessing=found.preprocessing),
        compute_metrics=accuracy,
        train_dataset=train,
        eval_dataset=load_dataset(arguments.dataset_name, split=arguments.eval_split),
        processing_class=found.image_processor,
    )
    trainer.add_callback(Task2VecCallback(trainer, embedding=embedding))
    if training.do_train:
        trainer.train()
        trainer.save_model()
    if training.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    card = {
        "dataset": arguments.dataset_name,
        "dataset_tags": arguments.dataset_name,
        "dataset_args": arguments.eval_split,
        "tasks": "image-classification",
        "tags": ["image-classification", "vision"],
    }
    if training.push_to_hub:
        trainer.push_to_hub(**card)
    else:
        trainer.create_model_card(**card)


if __name__ == "__main__":
    main()
