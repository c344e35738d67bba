# fish completion for ppgs, made by 'ppgs completion show fish'.

function __ppgs_command -d 'The command on the line so far'
    for word in (commandline -opc)[2..-1]
        if not string match -q -- '-*' $word
            echo $word
            return
        end
    end
end

function __ppgs_in
    test "$(__ppgs_command)" = "$argv[1]"
end

# Offers values that ppgs knows, else files or folders.
function __ppgs_offer -a kinds paths
    set -l words (commandline -opc)
    set -l word (commandline -ct | string replace -r -- '^--[a-z-]+=' '')
    set -l values
    if test -n "$kinds"
        set -l program (string replace -r '^~' $HOME -- $words[1])
        set values (command $program completion values $kinds "$word" $words[2..-1] 2>/dev/null)
    end
    if test (count $values) -gt 0
        printf '%s\n' $values
    else if test "$paths" = files
        __fish_complete_path "$word"
    else if test "$paths" = folders
        __fish_complete_directories "$word" ''
    end
end

complete -c ppgs -f
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -l version -d 'Print the version and exit'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -l debug -d 'Show tracebacks of errors'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a plan-schedule -d 'Tell what a schedule costs before it starts: memory, FLOPs, time and energy of every stage'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a prepare -d 'Convert, check, plan and preprocess a task without training it'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a doctor -d 'Check this machine and, with TASK, its data'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a train -d 'Prepare what is missing, train under a schedule, and validate'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a resume -d 'Continue a stopped or killed run exactly where its last checkpoint left it'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a monitor -d 'Watch runs, live or finished, in the terminal'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a runs -d 'List all runs and where they stand, and what of sweeps is done'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a predict -d 'Segment every image of a folder (or one file) with a trained run'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a export -d 'Write finished runs as nnU-Net\'s own model zip, with a model card'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a compare -d 'Statistics of two or more trainings: which one is better, how sure that is, and what it cost'
complete -c ppgs -n 'test -z "$(__ppgs_command)"' -a completion -d 'Complete commands, options, tasks, runs and schedules by TAB'
complete -c ppgs -n '__ppgs_in plan-schedule' -l schedule -x -a '(__ppgs_offer "SCHEDULE" files)' -d 'efficiency (default), performance, constant, random, pgps-2024, pgps-plus-2024, or a YAML file'
complete -c ppgs -n '__ppgs_in plan-schedule' -l configuration -x -a '(__ppgs_offer "CONFIGURATION" none)' -d 'nnU-Net configuration'
complete -c ppgs -n '__ppgs_in plan-schedule' -l plans -x -a '(__ppgs_offer "PLANS" none)' -d 'nnU-Net plans'
complete -c ppgs -n '__ppgs_in plan-schedule' -l epochs -x -d 'Epochs in all (nnU-Net: 1000)'
complete -c ppgs -n '__ppgs_in plan-schedule' -l iterations -x -d 'Iterations per epoch (nnU-Net: 250)'
complete -c ppgs -n '__ppgs_in plan-schedule' -l batch-size -x -d 'Overrides the plan\'s batch size'
complete -c ppgs -n '__ppgs_in plan-schedule' -l mirroring -x -a 'on off' -d 'Axes that training and inference mirror, such as 0,1'
complete -c ppgs -n '__ppgs_in plan-schedule' -l budget -x -d 'Propose the schedule that meets it'
complete -c ppgs -n '__ppgs_in plan-schedule' -l gpu-memory -x -a 'auto (__ppgs_offer "CARD" none)' -d 'Memory to fit in: the GPU here, a size, or a card (rtx3090, a100-40gb, h100)'
complete -c ppgs -n '__ppgs_in plan-schedule' -l fit -d 'Change stages that do not fit, mildest remedy first'
complete -c ppgs -n '__ppgs_in plan-schedule' -l fill -d 'performance: batches as large as the memory allows'
complete -c ppgs -n '__ppgs_in plan-schedule' -l device -x -a 'auto cuda cpu mps' -d 'Where to compute'
complete -c ppgs -n '__ppgs_in plan-schedule' -l calibrate -d 'Measure real steps on this machine (under a minute) and use them from then on'
complete -c ppgs -n '__ppgs_in plan-schedule' -l root -x -a '(__ppgs_offer "" folders)' -d 'Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results'
complete -c ppgs -n '__ppgs_in plan-schedule' -l against -x -a '(__ppgs_offer "RUN" folders)' -d 'Show what a run took beside the estimate'
complete -c ppgs -n '__ppgs_in plan-schedule' -s o -l output -x -a '(__ppgs_offer "" files)' -d 'Write the schedule'
complete -c ppgs -n '__ppgs_in plan-schedule' -l plot -x -a '(__ppgs_offer "" files)' -d 'Draw patch volume and memory over epochs'
complete -c ppgs -n '__ppgs_in plan-schedule' -l json -d 'Print the result as JSON on stdout'
complete -c ppgs -n '__ppgs_in plan-schedule' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in plan-schedule' -a '(__ppgs_offer "TASK" folders)'
complete -c ppgs -n '__ppgs_in prepare' -l configuration -x -a '(__ppgs_offer "CONFIGURATION" none)' -d 'nnU-Net configuration'
complete -c ppgs -n '__ppgs_in prepare' -l plans -x -a '(__ppgs_offer "PLANS" none)' -d 'nnU-Net plans'
complete -c ppgs -n '__ppgs_in prepare' -l root -x -a '(__ppgs_offer "" folders)' -d 'Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results'
complete -c ppgs -n '__ppgs_in prepare' -l json -d 'Print the result as JSON on stdout'
complete -c ppgs -n '__ppgs_in prepare' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in prepare' -a '(__ppgs_offer "TASK" folders)'
complete -c ppgs -n '__ppgs_in doctor' -l root -x -a '(__ppgs_offer "" folders)' -d 'Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results'
complete -c ppgs -n '__ppgs_in doctor' -l json -d 'Print the result as JSON on stdout'
complete -c ppgs -n '__ppgs_in doctor' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in doctor' -a '(__ppgs_offer "TASK" folders)'
complete -c ppgs -n '__ppgs_in train' -l schedule -x -a '(__ppgs_offer "SCHEDULE" files)' -d 'efficiency (default), performance, constant, random, pgps-2024, pgps-plus-2024, or a YAML file'
complete -c ppgs -n '__ppgs_in train' -l configuration -x -a '(__ppgs_offer "CONFIGURATION" none)' -d 'nnU-Net configuration'
complete -c ppgs -n '__ppgs_in train' -l plans -x -a '(__ppgs_offer "PLANS" none)' -d 'nnU-Net plans'
complete -c ppgs -n '__ppgs_in train' -l fold -x -d '0, 0,2, 0-4, or all: one model on all cases'
complete -c ppgs -n '__ppgs_in train' -l epochs -x -d 'Epochs in all (nnU-Net: 1000)'
complete -c ppgs -n '__ppgs_in train' -l iterations -x -d 'Iterations per epoch (nnU-Net: 250)'
complete -c ppgs -n '__ppgs_in train' -l batch-size -x -d 'Overrides the plan\'s batch size'
complete -c ppgs -n '__ppgs_in train' -l mirroring -x -a 'on off' -d 'Axes that training and inference mirror, such as 0,1'
complete -c ppgs -n '__ppgs_in train' -l seed -x -d 'Of everything random'
complete -c ppgs -n '__ppgs_in train' -l device -x -a 'auto cuda cpu mps' -d 'Where to compute'
complete -c ppgs -n '__ppgs_in train' -l workers -x -d 'Loader processes'
complete -c ppgs -n '__ppgs_in train' -l loader-timeout -x -d 'Without a batch for so long, stop resumable'
complete -c ppgs -n '__ppgs_in train' -l gpu-memory -x -a 'auto (__ppgs_offer "CARD" none)' -d 'Memory to fit in: the GPU here, a size, or a card (rtx3090, a100-40gb, h100)'
complete -c ppgs -n '__ppgs_in train' -l fit -d 'Change stages that do not fit, mildest remedy first'
complete -c ppgs -n '__ppgs_in train' -l energy -l no-energy -d 'Measure energy, offline (CodeCarbon)'
complete -c ppgs -n '__ppgs_in train' -l previous-stage -x -a '(__ppgs_offer "RUN" folders)' -d 'Of a cascade\'s second stage: a run of its first'
complete -c ppgs -n '__ppgs_in train' -l npz -d 'Keep the validation\'s probabilities, for ensembles'
complete -c ppgs -n '__ppgs_in train' -l root -x -a '(__ppgs_offer "" folders)' -d 'Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results'
complete -c ppgs -n '__ppgs_in train' -l name -x -d 'Tells this run from others of the same schedule'
complete -c ppgs -n '__ppgs_in train' -l overwrite -d 'Replace a run of the same name'
complete -c ppgs -n '__ppgs_in train' -l jobs -x -d 'Trainings at a time'
complete -c ppgs -n '__ppgs_in train' -l slurm -x -d 'Submit as Slurm jobs: partition, time (4h'
complete -c ppgs -n '__ppgs_in train' -l slurm-dry-run -d 'Print the script, submit nothing'
complete -c ppgs -n '__ppgs_in train' -l detach -d 'Train in the background'
complete -c ppgs -n '__ppgs_in train' -l no-tui -d 'Plain lines, no live display'
complete -c ppgs -n '__ppgs_in train' -l json -d 'Print the result as JSON on stdout'
complete -c ppgs -n '__ppgs_in train' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in train' -a '(__ppgs_offer "TASK" folders)'
complete -c ppgs -n '__ppgs_in resume' -l root -x -a '(__ppgs_offer "" folders)' -d 'Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results'
complete -c ppgs -n '__ppgs_in resume' -l detach -d 'Train in the background'
complete -c ppgs -n '__ppgs_in resume' -l no-tui -d 'Plain lines, no live display'
complete -c ppgs -n '__ppgs_in resume' -l json -d 'Print the result as JSON on stdout'
complete -c ppgs -n '__ppgs_in resume' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in resume' -a '(__ppgs_offer "RUN" folders)'
complete -c ppgs -n '__ppgs_in monitor' -l refresh -x -d 'How often to look for news'
complete -c ppgs -n '__ppgs_in monitor' -l root -x -a '(__ppgs_offer "" folders)' -d 'Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results'
complete -c ppgs -n '__ppgs_in monitor' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in monitor' -a '(__ppgs_offer "RUN" folders)'
complete -c ppgs -n '__ppgs_in runs' -l sweeps -d 'Matrices of sweeps alone, also of finished ones'
complete -c ppgs -n '__ppgs_in runs' -l root -x -a '(__ppgs_offer "" folders)' -d 'Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results'
complete -c ppgs -n '__ppgs_in runs' -l json -d 'Print the result as JSON on stdout'
complete -c ppgs -n '__ppgs_in runs' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in predict' -s i -l input -x -a '(__ppgs_offer "" files)' -d 'A folder of images, or one image'
complete -c ppgs -n '__ppgs_in predict' -s o -l output -x -a '(__ppgs_offer "" files)' -d 'A folder, or a file for one image'
complete -c ppgs -n '__ppgs_in predict' -l fold -x -d 'Folds to ensemble: 0,2 or 0-4'
complete -c ppgs -n '__ppgs_in predict' -l checkpoint -x -a 'final best latest' -d 'Default: final, else latest'
complete -c ppgs -n '__ppgs_in predict' -l device -x -a 'auto cuda cpu mps' -d 'Where to compute'
complete -c ppgs -n '__ppgs_in predict' -l mirroring -l no-mirroring -d 'Test-time mirroring, as nnU-Net does'
complete -c ppgs -n '__ppgs_in predict' -l step-size -x -d 'Distance of tiles relative to the patch'
complete -c ppgs -n '__ppgs_in predict' -l previous-stage -x -a '(__ppgs_offer "RUN" folders)' -d 'Of a cascade: its first stage\'s segmentations, or its run'
complete -c ppgs -n '__ppgs_in predict' -l save-probabilities -d 'Also write .npz files, for nnUNetv2_ensemble'
complete -c ppgs -n '__ppgs_in predict' -l continue -d 'Skip images that are segmented already'
complete -c ppgs -n '__ppgs_in predict' -l root -x -a '(__ppgs_offer "" folders)' -d 'Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results'
complete -c ppgs -n '__ppgs_in predict' -l json -d 'Print the result as JSON on stdout'
complete -c ppgs -n '__ppgs_in predict' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in predict' -a '(__ppgs_offer "RUN" folders)'
complete -c ppgs -n '__ppgs_in export' -s o -l output -x -a '(__ppgs_offer "" files)' -d 'The zip to write'
complete -c ppgs -n '__ppgs_in export' -l fold -x -d 'Folds to export: 0,2 or 0-4'
complete -c ppgs -n '__ppgs_in export' -l overwrite -d 'Replace FILE.zip'
complete -c ppgs -n '__ppgs_in export' -l root -x -a '(__ppgs_offer "" folders)' -d 'Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results'
complete -c ppgs -n '__ppgs_in export' -l json -d 'Print the result as JSON on stdout'
complete -c ppgs -n '__ppgs_in export' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in export' -a '(__ppgs_offer "RUN" folders)'
complete -c ppgs -n '__ppgs_in compare' -l baseline -x -d 'What to compare with: a training, run or part of its name'
complete -c ppgs -n '__ppgs_in compare' -l only -x -d 'Keep trainings whose name, or a part between \'__\', fits'
complete -c ppgs -n '__ppgs_in compare' -l references -x -a '(__ppgs_offer "" folders)' -d 'Reference segmentations of the predictions'
complete -c ppgs -n '__ppgs_in compare' -l images -x -a '(__ppgs_offer "" folders)' -d 'Images for the pictures'
complete -c ppgs -n '__ppgs_in compare' -l margin -x -d 'Non-inferiority margin'
complete -c ppgs -n '__ppgs_in compare' -l surface -l no-surface -d 'Surface Dice and HD95 where segmentations are there (slow for large volumes)'
complete -c ppgs -n '__ppgs_in compare' -l tolerance -x -d 'Tolerance of the surface Dice'
complete -c ppgs -n '__ppgs_in compare' -l country -x -d 'Compute CO2 with a country\'s electricity (DEU)'
complete -c ppgs -n '__ppgs_in compare' -l carbon-intensity -x -d 'Compute CO2 with this intensity in g/kWh'
complete -c ppgs -n '__ppgs_in compare' -l keep-going -d 'Compare what can be compared'
complete -c ppgs -n '__ppgs_in compare' -l workers -x -d 'Processes for the surface distances'
complete -c ppgs -n '__ppgs_in compare' -l json -d 'Print the result as JSON on stdout'
complete -c ppgs -n '__ppgs_in compare' -l csv -d 'Print CSV, unrounded'
complete -c ppgs -n '__ppgs_in compare' -l latex -d 'Print a LaTeX table (booktabs)'
complete -c ppgs -n '__ppgs_in compare' -l markdown -d 'Print a Markdown table'
complete -c ppgs -n '__ppgs_in compare' -l html -x -a '(__ppgs_offer "" files)' -d 'Write a self-contained report'
complete -c ppgs -n '__ppgs_in compare' -l figures -x -a '(__ppgs_offer "" folders)' -d 'Write the figures as SVG, PDF and PNG'
complete -c ppgs -n '__ppgs_in compare' -l root -x -a '(__ppgs_offer "" folders)' -d 'Holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results'
complete -c ppgs -n '__ppgs_in compare' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in compare' -a '(__ppgs_offer "RUN" folders)'
complete -c ppgs -n '__ppgs_in completion' -l help -s h -d 'Show this message and exit.'
complete -c ppgs -n '__ppgs_in completion' -a 'show install'
complete -c ppgs -n '__ppgs_in completion' -a 'bash zsh fish'
