"""Holds the help of every command, one screen each; tests hold it against the options and their defaults."""

_MORE = "\nMore: --help all shows every option.\n"
_SECTIONS = """
More: --help all shows every option of the command, --help SECTION the fields of one of network,
data, augment, optim, train, selection, log, self_training, weights, …
"""
_TABLE_OPTIONS = """\
  --recipe NAME|FILE        a comparison: toytown, streets_camvid, gta5_cityscapes,
                            synthia_cityscapes, or a YAML file
  --seeds N|A,B             how many seeds, or which [1]
  --out FOLDER              of the table and all of its runs
  --source DIR[:WEIGHT]     the labelled folder, once or several times as for adapt; Toytown needs
                            none
  --target DIR|GLOB|VIDEO   the unlabelled footage
  --data DIR                the labelled images that are scored [those of --target]
  --init FILE               start from this source checkpoint; {seed} stands for the seed
  --devices A,B             train at the same time on these, such as cuda:0,cuda:1 or cpu,cpu
                            [auto]
  --on local|ray            on Ray, with its --address, --cpus N and --devices cuda a run [local]
  --json                    print the table as JSON
  --SECTION.FIELD VALUE     data, network and train.device for all runs, anything else for those
                            that adapt
"""

HELP = {
    "pretrain": """\
usage: python -m lsr_train pretrain --recipe NAME|FILE [--source DIR] [--SECTION.FIELD VALUE]…
       python -m lsr_train pretrain --resume RUN

Trains on labelled images: the source stage that `adapt --init` starts from, or, with method
target-only, the supervised bound on the target. A run folder holds its configuration, log and
checkpoints.

Options (defaults in brackets; a recipe may set others):
  --recipe NAME|FILE        settings by name, such as my_footage_source or toytown_source, or a
                            YAML file
  --source DIR[:WEIGHT]     the labelled folder: images/, labels/ and classes.yaml; Toytown needs
                            none; several are mixed by weight: --source A --source B:0.5
  --data.source.layout L    how the --source before it is arranged: folder, gta5, synthia,
                            cityscapes, camvid, toytown-game … [folder]
  --target DIR|GLOB|VIDEO   unlabelled footage, to take colours or batch-norm statistics from
  --out RUN                 the run folder to make [runs/RECIPE]
  --resume RUN              continue an interrupted run
  --copy_to s3://BUCKET/RUN a copy of each finished checkpoint in a store; --or_resume takes it up
  --or_resume               continue the run at --out where it is there (restarts of torchrun)
  --init RUN|FILE           start from a checkpoint instead of network.weights
  --network.backbone NAME   resnet18 to resnet101, efficientnet-lite0 or -lite2 [resnet101]
  --network.weights W       imagenet (fetched once), none, or a file [imagenet]
  --train.steps N           length [1000]
  --data.batch_size N       images in a step [1]
  --optim.lr RATE           base learning rate [0.00025]
  --train.device DEVICE     auto, cpu, cuda or cuda:N [auto]
  --seed N                  of everything random [0]
  --print_config            show the whole resolved configuration, and do nothing else

Examples:
  python -m lsr_train pretrain --recipe toytown_source --out runs/source
  python -m lsr_train pretrain --recipe my_footage_source --source SIM --target CLIP.mp4 --out RUN
"""
    + _SECTIONS,
    "adapt": """\
usage: python -m lsr_train adapt --source DIR --target DIR|GLOB|VIDEO [--SECTION.FIELD VALUE]…
       python -m lsr_train adapt --resume RUN

Adapts a network to unlabelled footage. Without --init it trains the source stage first, beside
--out, or takes one that is there and matches; what neither the command line nor a named recipe
sets is chosen for the footage, the memory and the device, and noted in the run folder.

Options (defaults in brackets; a recipe may set others):
  --source DIR[:WEIGHT]     labelled images of a simulator: images/, labels/ and classes.yaml; give
                            several to mix them by weight, such as --source A --source B:0.5
  --target DIR|GLOB|VIDEO   footage of the camera that the network is for; no label of it is read
  --labelled DIR[:WEIGHT]   a few labelled frames of the camera, such as `suggest` picks
  --budget TIME             time for both stages, such as 90s, 30m or 2h
  --out RUN                 the run folder to make [runs/selftraining]
  --resume RUN              continue an interrupted run
  --copy_to s3://BUCKET/RUN a copy of each finished checkpoint in a store; --or_resume takes it up
  --or_resume               continue the run at --out where it is there (restarts of torchrun)
  --init RUN|FILE           adapt this checkpoint instead of training a source stage
  --recipe NAME|FILE        settings by name, such as gta5_cityscapes_lsr, or a YAML file
                            [selftraining]
  --method NAME             lsr-st, lsr-em, lsr, self-training, minent … or FILE.py:CLASS [lsr-st]
  --data.source.layout L    how the --source before it is arranged: folder, gta5, synthia,
                            cityscapes, camvid … [folder]
  --network.backbone NAME   resnet18 to resnet101, efficientnet-lite0 or -lite2 [resnet50]
  --train.steps N           length of the adaptation [4000]
  --data.batch_size N       images of each domain in a step [4]
  --data.on_bad WHAT        stop at unusable files, or skip them [stop]
  --train.device DEVICE     auto, cpu, cuda or cuda:N [auto]
  --source_stage.SECTION.FIELD VALUE
                            what only the source stage has, such as --source_stage.train.steps
                            9000
  --print_config            show the whole resolved configuration, and do nothing else

Examples:
  python -m lsr_train adapt --source SIMULATOR --target CLIP.mp4 --budget 2h
  python -m lsr_train adapt --recipe toytown_lsr_em --init runs/source --out runs/adapted
"""
    + _SECTIONS,
    "distill": """\
usage: python -m lsr_train distill TEACHER --source DIR --target DIR|GLOB|VIDEO [OPTIONS]
       python -m lsr_train distill --resume RUN

Trains a small student to predict what a finished network, the teacher, predicts on the footage.
TEACHER is a run folder, a checkpoint folder or a model file.

Options (defaults in brackets; a recipe may set others):
  --source DIR[:WEIGHT]     labelled images of a simulator, once or several times as for adapt
  --target DIR|GLOB|VIDEO   unlabelled footage of the camera
  --student NAME            the student's backbone: resnet18 to resnet101, efficientnet-lite0
                            or efficientnet-lite2 [resnet18]
  --width FACTOR            of its channels; 0.5 halves them [1.0]
  --size WxH                its input size, such as 320x240 [1024x512]
  --network.weights W       what it starts from: imagenet, none, a file, or teacher (its channels)
                            [imagenet]
  --out RUN                 the run folder to make [runs/my_footage_distill]
  --resume RUN              continue an interrupted run
  --copy_to s3://BUCKET/RUN a copy of each finished checkpoint in a store; --or_resume takes it up
  --or_resume               continue the run at --out where it is there (restarts of torchrun)
  --recipe NAME|FILE        settings by name, or a YAML file [my_footage_distill]
  --distill.temperature T   divides the logits of both before they are compared [1.0]
  --distill.teacher_size S  the teacher sees images at the student's size, or at its own [student]
  --train.steps N           length [10000]
  --data.batch_size N       images of each domain in a step [4]
  --train.device DEVICE     auto, cpu, cuda or cuda:N [auto]
  --print_config            show the whole resolved configuration, and do nothing else

Examples:
  python -m lsr_train distill runs/adapted --source SIMULATOR --target CLIP.mp4 --size 640x352
  python -m lsr_train distill runs/adapted --recipe toytown_distill --out runs/student
"""
    + _SECTIONS,
    "compare": """\
usage: python -m lsr_train compare --recipe NAME|FILE [--seeds N] [--SECTION.FIELD VALUE]…

Trains every method of a comparison from one source stage, scores all of them on the same labelled
images, and writes the table as Markdown, LaTeX, CSV and JSON. The same command continues where an
earlier one was interrupted, and skips what is done; several at once share the work.

Options (defaults in brackets):
  --methods A,B             only these of its methods; FILE.py:CLASS adds one of your own [all]
  --supervised RESULT.json  of target-supervised training (evaluate --out), for mASR
  --source_stage.SECTION.FIELD VALUE, --target_only.SECTION.FIELD VALUE
                            what only the source stage, or only the supervised bound, has
"""
    + _TABLE_OPTIONS
    + """
Examples:
  python -m lsr_train compare --recipe toytown --out runs/table
  python -m lsr_train compare --recipe gta5_cityscapes --seeds 3 --source GTA5 --target CITYSCAPES
"""
    + _SECTIONS,
    "ablate": """\
usage: python -m lsr_train ablate --recipe NAME|FILE [--run METHOD] [--sweep … | --search …]

Varies one method of a comparison. Without --sweep and --search each of its terms is left out in
turn, and feature labels by plain subsampling take the place of the histogram's (Fig. 3a). A
search raises the label-free signal and reads no label. The same command continues where an
earlier one was interrupted.

Options (defaults in brackets):
  --run METHOD              the method of it that is varied, or FILE.py:CLASS [lsr-em]
  --sweep FIELD=A,B,C       train with each value; several flags make every combination
  --search FIELD=LOW..HIGH  search values between; append :log or :linear
  --trials N                points of a search [20]
"""
    + _TABLE_OPTIONS
    + """
Examples:
  python -m lsr_train ablate --recipe toytown --run lsr --sweep weights.cluster=1e-5,1e-4
  python -m lsr_train ablate --recipe toytown --run minent --search weights.entropy=1e-4..1e-1
"""
    + _SECTIONS,
    "analyze": """\
usage: python -m lsr_train analyze [NAME=]RUN|FILE… --data DIR [--layout LAYOUT] [OPTIONS]

Draws the figures of the paper, and more, of one network or several on labelled images: classes,
feature labels, norms and angles, t-SNE, pseudo-labels, reliability, borders, training curves and
gradients, with captions, and the numbers behind them in analysis.json. Labels are read for the
figures alone.

Options (defaults in brackets):
  --data DIR                the labelled data set; Toytown needs none
  --layout LAYOUT           how it is arranged: folder, gta5, synthia, cityscapes, camvid,
                            toytown-camera … [folder]
  --split NAME              a split of it, such as val; without, everything
  --frames N                only so many images, evenly spread; 0 means all [0]
  --figures A,B             only these: qualitative, downsampling, shares, norms, angles, tsne,
                            pseudo_labels, reliability, borders, curves, gradients [all]
  --formats A,B             of the files: pdf, svg, png [pdf,png]
  --pictures N              images in the qualitative figure [4]
  --over_training           evaluate every checkpoint that a run folder kept, too
  --out FOLDER              of the figures [figures]
  --overwrite               write into a folder that is not empty
  --json                    print the numbers as JSON
  --device DEVICE           auto, cpu, cuda or cuda:N [auto]
  --seed N                  of the sample and of t-SNE [0]

Examples:
  python -m lsr_train analyze runs/adapted --layout toytown-camera --split val --frames 60
  python -m lsr_train analyze before=runs/source after=runs/adapted --data DIR --split val
"""
    + _MORE,
    "report": """\
usage: python -m lsr_train report [NAME=]RUN… [--data DIR [--layout LAYOUT]] [OPTIONS]

Shows runs side by side in one HTML file that opens from disk and loads nothing from elsewhere:
curves, configurations, hardware and versions, and with labelled images scores, figures and the
worst frames. RUN is a run folder, or a folder that `compare` wrote.

Options (defaults in brackets):
  --data DIR                a labelled data set, for scores, figures and the worst frames; of a
                            folder of `compare` without it, the images that were scored
  --layout LAYOUT           how it is arranged: folder, gta5, synthia, cityscapes, camvid,
                            toytown-camera … [folder]
  --split NAME              a split of it, such as val; without, everything
  --limit N                 only the first so many images; 0 means all [0]
  --label_space S           the classes: a name, a YAML file, or the checkpoint's own [auto]
  --worst N                 how many of the worst frames of the last run are shown [6]
  --out FILE                the page [report.html]
  --overwrite               replace it
  --on_bad WHAT             stop at unusable files, or skip them [stop]
  --device DEVICE           auto, cpu, cuda or cuda:N [auto]
  --precision P             auto, fp32, bf16 or fp16 [fp32]

Examples:
  python -m lsr_train report runs/source runs/adapted
  python -m lsr_train report before=runs/source after=runs/adapted --layout toytown-camera
"""
    + _MORE,
    "evaluate": """\
usage: python -m lsr_train evaluate MODEL --data DIR [--layout LAYOUT] [OPTIONS]

Scores a network on labelled images: IoU of each class, their mean, and mASR against a supervised
result. MODEL is a run folder (its selected checkpoint, else its last), a .safetensors or .pth
file, or an exported .onnx or .engine, which the runtime that ships it runs.

Options (defaults in brackets):
  --data DIR                the labelled data set; Toytown needs none
  --layout LAYOUT           how it is arranged: folder, gta5, synthia, cityscapes, camvid,
                            toytown-camera … [folder]
  --split NAME              a split of it, such as val; without, everything
  --ids WHAT                what label files hold: auto, cityscapes-id, cityscapes-trainid,
                            synthia-id, classes [auto]
  --label_space S           classes to score in: a name, a YAML file, or the checkpoint's own
                            [auto]
  --limit N                 only the first so many images; 0 means all [0]
  --protocol P              native (logits at the labels' size) or resized (labels at the
                            network's) [native]
  --scales A,B              factors of the input size whose predictions are averaged [1]
  --flip                    average with the mirrored image, too
  --batch_norm WHICH        stored statistics, or target: estimated on --target [stored]
  --supervised RESULT.json  of target-supervised training (evaluate --out), for mASR
  --out RESULT.json         write the result there
  --overlays N              draw the N worst frames into --overlay_dir FOLDER [0]
  --overwrite               replace what is there
  --json                    print the result as JSON
  --device DEVICE           auto, cpu, cuda or cuda:N [auto]
  --precision P             auto, fp32, bf16 or fp16 [fp32]

Examples:
  python -m lsr_train evaluate runs/adapted --layout toytown-camera --split val --limit 60
  python -m lsr_train evaluate adapted.onnx --data CITYSCAPES --layout cityscapes --split val
"""
    + _MORE,
    "suggest": """\
usage: python -m lsr_train suggest RUN --target DIR|GLOB|VIDEO -n 20 --out FOLDER [OPTIONS]

Picks the frames of your footage that are most worth labelling, and writes them with the network's
predictions as labels to be corrected. Frames count on which its predictions of the frame, its
mirror image and a smaller copy disagree (and teacher and student, where the run has both); they
are spread over what the footage shows, and no two are of one scene. RUN is a run folder or a
.safetensors file. What comes out is a folder for adapt's option labelled.

Options (defaults in brackets):
  --target DIR|GLOB|VIDEO   the footage; no label of it is read
  -n, --count N             how many frames are suggested [20]
  --out FOLDER              images/, labels/, classes.yaml, preview/ and frames.csv
  --format F                folder, or cvat: the layout of its "Segmentation mask 1.1" [folder]
  --apart SECONDS           two frames of one video lie apart at least so far [2.0]
  --frames N                how many frames are looked at, evenly spread; 0 means all [1000]
  --target_seconds S        spacing of the frames that are looked at in a video [0.5]
  --target_ignore_bottom S  share of a frame's rows that is the car's own hood [0.0]
  --ignore_mask PNG         whose non-zero pixels are not looked at, and void in the labels
  --on_bad WHAT             stop at unusable files, or skip them [stop]
  --label_space S           the classes, where a checkpoint names none [auto]
  --device DEVICE           auto, cpu, cuda or cuda:N [auto]
  --precision P             auto, fp32, bf16 or fp16 [fp32]

Examples:
  python -m lsr_train suggest runs/adapted --target CLIP.mp4 -n 20 --out to_label
  python -m lsr_train suggest runs/adapted --target DRIVES --format cvat --out to_label
"""
    + _MORE,
}
