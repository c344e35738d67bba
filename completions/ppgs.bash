# bash completion for ppgs, made by 'ppgs completion show bash'.

# Adds what fits the word typed so far: words, values that ppgs knows, else files or folders.
_ppgs_offer() { # WORDS KINDS files|folders|none
    local found
    for found in $1; do
        [[ $found == "$word"* ]] && COMPREPLY+=("$found")
    done
    if [[ -n $2 ]]; then
        while IFS=$'\t' read -r found _; do
            COMPREPLY+=("$found")
        done < <("${program/#\~/$HOME}" completion values "$2" "$word" "${COMP_WORDS[@]:1}" 2>/dev/null)
    fi
    [[ ${#COMPREPLY[@]} -gt 0 || $3 == none ]] && return
    while IFS= read -r found; do
        COMPREPLY+=("$found")
    done < <(if [[ $3 == files ]]; then compgen -f -- "$word"; else compgen -d -- "$word"; fi)
}

_ppgs() {
    local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= index
    COMPREPLY=()
    # bash takes `--option=value` apart at the `=`.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for ((index = 1; index < COMP_CWORD; index++)); do
        if [[ ${COMP_WORDS[index]} != -* ]]; then
            command=${COMP_WORDS[index]}
            # Commands of two words.
            if ((index + 1 < COMP_CWORD)); then
                case "$command ${COMP_WORDS[index+1]}" in
                    'runs export-logs') command+=" ${COMP_WORDS[index+1]}" ;;
                esac
            fi
            break
        fi
    done
    case "$command $before" in
        'plan-schedule --schedule')
            _ppgs_offer '' 'SCHEDULE' files
            return ;;
        'plan-schedule --configuration')
            _ppgs_offer '' 'CONFIGURATION' none
            return ;;
        'plan-schedule --plans')
            _ppgs_offer '' 'PLANS' none
            return ;;
        'plan-schedule --epochs')
            return ;;
        'plan-schedule --iterations')
            return ;;
        'plan-schedule --batch-size')
            return ;;
        'plan-schedule --mirroring')
            _ppgs_offer 'on off' '' none
            return ;;
        'plan-schedule --from-stage')
            return ;;
        'plan-schedule --start-patch')
            return ;;
        'plan-schedule --pretrained')
            _ppgs_offer '' 'RUN' files
            return ;;
        'plan-schedule --budget')
            return ;;
        'plan-schedule --gpu-memory')
            _ppgs_offer 'auto' 'CARD' none
            return ;;
        'plan-schedule --device')
            _ppgs_offer 'auto cuda cpu mps' '' none
            return ;;
        'plan-schedule --gpus')
            return ;;
        'plan-schedule --root')
            _ppgs_offer '' '' folders
            return ;;
        'plan-schedule --against')
            _ppgs_offer '' 'RUN' folders
            return ;;
        'plan-schedule -o'|'plan-schedule --output')
            _ppgs_offer '' '' files
            return ;;
        'plan-schedule --plot')
            _ppgs_offer '' '' files
            return ;;
        'prepare --images')
            _ppgs_offer '' '' folders
            return ;;
        'prepare --labels')
            _ppgs_offer '' '' folders
            return ;;
        'prepare --name')
            return ;;
        'prepare --id')
            return ;;
        'prepare --channel')
            return ;;
        'prepare --label')
            return ;;
        'prepare --configuration')
            _ppgs_offer '' 'CONFIGURATION' none
            return ;;
        'prepare --plans')
            _ppgs_offer '' 'PLANS' none
            return ;;
        'prepare --plans-from')
            _ppgs_offer '' 'RUN' files
            return ;;
        'prepare --mirror')
            return ;;
        'prepare --geometry')
            _ppgs_offer 'header voxel' '' none
            return ;;
        'prepare --root')
            _ppgs_offer '' '' folders
            return ;;
        'doctor --geometry')
            _ppgs_offer 'header voxel' '' none
            return ;;
        'doctor --root')
            _ppgs_offer '' '' folders
            return ;;
        'train --fold')
            return ;;
        'train --schedule')
            _ppgs_offer '' 'SCHEDULE' files
            return ;;
        'train --configuration')
            _ppgs_offer '' 'CONFIGURATION' none
            return ;;
        'train --plans')
            _ppgs_offer '' 'PLANS' none
            return ;;
        'train --epochs')
            return ;;
        'train --iterations')
            return ;;
        'train --batch-size')
            return ;;
        'train --mirroring')
            _ppgs_offer 'on off' '' none
            return ;;
        'train --from-stage')
            return ;;
        'train --start-patch')
            return ;;
        'train --gpu-memory')
            _ppgs_offer 'auto' 'CARD' none
            return ;;
        'train --device')
            _ppgs_offer 'auto cuda cpu mps' '' none
            return ;;
        'train --gpus')
            return ;;
        'train --budget')
            return ;;
        'train --until')
            _ppgs_offer 'job' '' none
            return ;;
        'train --patience')
            return ;;
        'train --seed')
            return ;;
        'train --restarts')
            return ;;
        'train --workers')
            return ;;
        'train --loader-timeout')
            return ;;
        'train --precision')
            _ppgs_offer 'auto nnunet' '' none
            return ;;
        'train --augmentation')
            _ppgs_offer 'batchwise nnunet' '' none
            return ;;
        'train --geometry')
            _ppgs_offer 'header voxel' '' none
            return ;;
        'train --trainer')
            _ppgs_offer '' 'TRAINER' none
            return ;;
        'train --pretrained')
            _ppgs_offer '' 'RUN' files
            return ;;
        'train --freeze')
            return ;;
        'train --previous-stage')
            _ppgs_offer '' 'RUN' folders
            return ;;
        'train --log')
            _ppgs_offer 'tensorboard wandb mlflow' '' none
            return ;;
        'train --name')
            return ;;
        'train --root')
            _ppgs_offer '' '' folders
            return ;;
        'train --jobs')
            return ;;
        'train --slurm')
            return ;;
        'resume --epochs')
            return ;;
        'resume --root')
            _ppgs_offer '' '' folders
            return ;;
        'resume --gpus')
            return ;;
        'resume --restarts')
            return ;;
        'resume --workers')
            return ;;
        'resume --loader-timeout')
            return ;;
        'stop --root')
            _ppgs_offer '' '' folders
            return ;;
        'monitor --refresh')
            return ;;
        'monitor --root')
            _ppgs_offer '' '' folders
            return ;;
        'runs --root')
            _ppgs_offer '' '' folders
            return ;;
        'validate --checkpoint')
            _ppgs_offer 'final best latest' '' none
            return ;;
        'validate --root')
            _ppgs_offer '' '' folders
            return ;;
        'predict -i'|'predict --input')
            _ppgs_offer '' '' files
            return ;;
        'predict -o'|'predict --output')
            _ppgs_offer '' '' files
            return ;;
        'predict --part')
            return ;;
        'predict --fold')
            return ;;
        'predict --checkpoint')
            _ppgs_offer 'final best latest' '' none
            return ;;
        'predict --device')
            _ppgs_offer 'auto cuda cpu mps' '' none
            return ;;
        'predict --gpus')
            return ;;
        'predict --slurm')
            return ;;
        'predict --parts')
            return ;;
        'predict --step-size')
            return ;;
        'predict --preprocess-workers')
            return ;;
        'predict --export-workers')
            return ;;
        'predict --previous-stage')
            _ppgs_offer '' 'RUN' folders
            return ;;
        'predict --references')
            _ppgs_offer '' '' folders
            return ;;
        'predict --root')
            _ppgs_offer '' '' folders
            return ;;
        'export -o'|'export --output')
            _ppgs_offer '' '' files
            return ;;
        'export --fold')
            return ;;
        'export --root')
            _ppgs_offer '' '' folders
            return ;;
        'runs export-logs --to')
            _ppgs_offer 'tensorboard wandb mlflow' '' none
            return ;;
        'runs export-logs -o'|'runs export-logs --output')
            _ppgs_offer '' '' folders
            return ;;
        'runs export-logs --root')
            _ppgs_offer '' '' folders
            return ;;
        'compare --baseline')
            return ;;
        'compare --only')
            return ;;
        'compare --references')
            _ppgs_offer '' '' folders
            return ;;
        'compare --images')
            _ppgs_offer '' '' folders
            return ;;
        'compare --margin')
            return ;;
        'compare --tolerance')
            return ;;
        'compare --country')
            return ;;
        'compare --carbon-intensity')
            return ;;
        'compare --workers')
            return ;;
        'compare --html')
            _ppgs_offer '' '' files
            return ;;
        'compare --figures')
            _ppgs_offer '' '' folders
            return ;;
        'compare --root')
            _ppgs_offer '' '' folders
            return ;;
    esac
    case "$command" in
        '')
            if [[ $word == -* ]]; then
                _ppgs_offer '--version --debug --help -h' '' none
            else
                _ppgs_offer 'plan-schedule prepare doctor train resume stop monitor runs validate predict export compare completion' '' none
            fi ;;
        plan-schedule)
            if [[ $word == -* ]]; then
                _ppgs_offer '--schedule --configuration --plans --epochs --iterations --batch-size --mirroring --from-stage --start-patch --pretrained --budget --gpu-memory --fit --fill --device --gpus --calibrate --root --against -o --output --plot --json --help -h' '' none
            else
                _ppgs_offer '' 'TASK' folders
            fi ;;
        prepare)
            if [[ $word == -* ]]; then
                _ppgs_offer '--images --labels --name --id --channel --label --configuration --plans --plans-from --download --mirror --geometry --root --json --help -h' '' none
            else
                _ppgs_offer '' 'TASK' folders
            fi ;;
        doctor)
            if [[ $word == -* ]]; then
                _ppgs_offer '--geometry --root --json --help -h' '' none
            else
                _ppgs_offer '' 'TASK' folders
            fi ;;
        train)
            if [[ $word == -* ]]; then
                _ppgs_offer '--fold --schedule --configuration --plans --epochs --iterations --batch-size --mirroring --from-stage --start-patch --gpu-memory --fit --device --gpus --budget --until --patience --seed --restarts --workers --loader-timeout --skip-nonfinite --precision --deterministic --channels-last --augmentation --geometry --trainer --pretrained --freeze --energy --no-energy --previous-stage --log --npz --name --overwrite --root --jobs --slurm --slurm-dry-run --yes -y --detach --no-tui --json --help -h' '' none
            else
                _ppgs_offer '' 'TASK' folders
            fi ;;
        resume)
            if [[ $word == -* ]]; then
                _ppgs_offer '--epochs --skip-nonfinite --as-prepared --root --gpus --restarts --workers --loader-timeout --detach --no-tui --json --help -h' '' none
            else
                _ppgs_offer '' 'RUN' folders
            fi ;;
        stop)
            if [[ $word == -* ]]; then
                _ppgs_offer '--root --json --help -h' '' none
            else
                _ppgs_offer '' 'RUN' folders
            fi ;;
        monitor)
            if [[ $word == -* ]]; then
                _ppgs_offer '--refresh --root --help -h' '' none
            else
                _ppgs_offer '' 'RUN' folders
            fi ;;
        runs)
            if [[ $word == -* ]]; then
                _ppgs_offer '--sweeps --root --json --help -h' '' none
            else
                _ppgs_offer 'export-logs' '' none
            fi ;;
        validate)
            if [[ $word == -* ]]; then
                _ppgs_offer '--checkpoint --npz --root --no-tui --json --help -h' '' none
            else
                _ppgs_offer '' 'RUN' folders
            fi ;;
        predict)
            if [[ $word == -* ]]; then
                _ppgs_offer '-i --input -o --output --recursive --part --fold --checkpoint --device --gpus --slurm --parts --slurm-dry-run --mirroring --no-mirroring --step-size --preprocess-workers --export-workers --previous-stage --save-probabilities --continue --no-continue --statistics --overlay --references --overwrite --root --json --help -h' '' none
            else
                _ppgs_offer '' 'RUN' folders
            fi ;;
        export)
            if [[ $word == -* ]]; then
                _ppgs_offer '-o --output --fold --overwrite --root --json --help -h' '' none
            else
                _ppgs_offer '' 'RUN' folders
            fi ;;
        runs\ export-logs)
            if [[ $word == -* ]]; then
                _ppgs_offer '--to -o --output --root --help -h' '' none
            else
                _ppgs_offer '' 'RUN' folders
            fi ;;
        compare)
            if [[ $word == -* ]]; then
                _ppgs_offer '--baseline --only --references --images --margin --surface --no-surface --tolerance --country --carbon-intensity --keep-going --workers --json --csv --latex --markdown --html --figures --root --help -h' '' none
            else
                _ppgs_offer '' 'RUN' folders
            fi ;;
        completion)
            if [[ $word == -* ]]; then
                _ppgs_offer '--help -h' '' none
            else
                _ppgs_offer 'show install' '' none
                _ppgs_offer 'bash zsh fish' '' none
            fi ;;
    esac
}

complete -o filenames -F _ppgs ppgs
