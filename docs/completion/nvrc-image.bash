# bash completion of nvrc-image: source it, or lay it into a folder that bash-completion reads.
_nvrc_image() {
    local at="" word cur="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=""
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$at/$word" in
            '/build') at='build' ;;
            '/check') at='check' ;;
            '/inspect') at='inspect' ;;
            '/diff') at='diff' ;;
            '/measure') at='measure' ;;
            '/sign') at='sign' ;;
            '/verify') at='verify' ;;
            '/push') at='push' ;;
            '/pull') at='pull' ;;
            '/overlay') at='overlay' ;;
            '/check-extension') at='check-extension' ;;
            '/enrol') at='enrol' ;;
            '/kata-config') at='kata-config' ;;
            '/lock') at='lock' ;;
        esac
    done
    case "$at $previous" in
        'measure --tee') words='snp tdx' ;;
        *) case "$at" in
        '') words='build check inspect diff measure sign verify push pull overlay check-extension enrol kata-config lock -h --help --version' ;;
        'build') words='-h --help --out --cache --mirror --json --agent --components --agent-policy --policy --wait --declarations --archive --archive-key --package --kernel --driver-run' ;;
        'check') words='-h --help --out --cache --mirror --json --declarations --archive --archive-key' ;;
        'inspect') words='-h --help --out --cache --mirror --json --svg --table' ;;
        'diff') words='-h --help --out --cache --mirror --json' ;;
        'measure') words='-h --help --out --cache --mirror --json --tee --firmware --cmdline --kernel --vcpus --vcpu-type --guest-policy --qemu --memory --extension -o --output --compare' ;;
        'sign') words='-h --help --out --cache --mirror --json --key --builder' ;;
        'verify') words='-h --help --out --cache --mirror --json --signers --identity --report --firmware --cmdline --kernel --vcpus --vcpu-type --guest-policy --qemu --memory --initdata --or-cmdline --or-firmware' ;;
        'push') words='-h --help --out --cache --mirror --json' ;;
        'pull') words='-h --help --out --cache --mirror --json -o --output --limit-mib --signers --identity' ;;
        'overlay') words='-h --help --out --cache --mirror --json -o --output --name' ;;
        'check-extension') words='-h --help --out --cache --mirror --json --kernel' ;;
        'enrol') words='-h --help --out --cache --mirror --json --vars -o --output' ;;
        'kata-config') words='-h --help --out --cache --mirror --json --runtime-class -d --directory --pod --deploy --name --prefix --kernel --extension --class-config --drop --kernel-params --debug --gpus --nvswitch --memory --pod-image' ;;
        'lock') words='-h --help --out --cache --mirror --json --declarations --archive --archive-key' ;;
        esac ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o default -F _nvrc_image nvrc-image
